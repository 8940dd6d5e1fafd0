//! Somebody who restores the newest epoch again and again beside the leader, to be warm when it is his turn.

use std::sync::Arc;

use bytes::Bytes;
use epochwarden_store::{ObjectStoreBackend, StateBackendError};

use crate::oracle::ClientKind;
use crate::process::Process;
use crate::store::SimStore;
use crate::world::{World, sleep};

/// Stands by until the end.
pub(crate) async fn stand_by(world: World, process: Process) {
    loop {
        sleep(world.draw(300, 4_000)).await;
        let begun = world.with(|state| state.now);
        match follow(&world, &process).await {
            Ok(bodies) => world.with(|state| {
                state.count("states followed");
                state.oracle.has_followed(&bodies, begun);
            }),
            Err(StateBackendError::RestoreIncomplete { .. }) => world.count("restores begun anew"),
            Err(_) => world.count("states not followed"),
        }
    }
}

/// The newest state, as the leader of this moment would restore it.
async fn follow(world: &World, process: &Process) -> Result<Vec<Bytes>, StateBackendError> {
    let fence = world.with(|state| state.bucket.registers().fence.get());
    let store = Arc::new(SimStore::new(world, process, "the one who stands by", ClientKind::Reader));
    let backend = ObjectStoreBackend::builder(store)
        .instance_id("the one who stands by")
        .vnode_capacity(world.setup().vnodes)
        .leading(fence)
        .build();
    let Some(restore) = backend.restore(None).await? else { return Ok(Vec::new()) };
    let mut bodies = Vec::new();
    for vnode in 0..world.setup().vnodes {
        bodies.push(restore.read_partial(vnode).await?);
    }
    restore.finish().await?;
    Ok(bodies)
}

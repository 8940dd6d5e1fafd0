//! The leader's Lease and the API server that keeps it, as far as an election and an operator see them.

use tokio::time::Instant;

use crate::world::{State, World, sleep};

/// The Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) uid: String,
    pub(crate) holder: String,
    pub(crate) transitions: i32,
    /// Changes with every renewal.
    pub(crate) renewed: u64,
    /// The resource version.
    pub(crate) resource: u64,
}

/// What the API server said, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Somebody else has changed it.
    Conflict,
    /// No answer: it may have happened.
    Unknown,
}

/// One request to the API server.
async fn request<T>(world: &World, act: impl FnOnce(&mut State) -> T) -> Result<T, Failure> {
    let (before, after, lost, fails) = world.with(|state| {
        let (before, after) = (state.rng.u64(1..8), state.rng.u64(1..8));
        (before, after, state.mishap(10), state.mishap(10))
    });
    sleep(before).await;
    if fails {
        return Err(Failure::Unknown);
    }
    let result = world.with(act);
    sleep(after).await;
    if lost { Err(Failure::Unknown) } else { Ok(result) }
}

/// The Lease as it is; `None` when there is none.
pub(crate) async fn get(world: &World) -> Result<Option<Lease>, Failure> {
    request(world, |state| state.lease.clone()).await
}

/// Puts `lease` in the place of the one with the resource version that it has, or of none.
async fn put(world: &World, lease: Lease, creates: bool) -> Result<Lease, Failure> {
    request(world, |state| {
        let fits = match &state.lease {
            None => creates,
            Some(standing) => !creates && standing.resource == lease.resource && standing.uid == lease.uid,
        };
        if !fits {
            return Err(Failure::Conflict);
        }
        let lease = Lease { resource: lease.resource + 1, renewed: lease.renewed + 1, ..lease };
        if state.lease.as_ref().is_none_or(|standing| standing.transitions != lease.transitions) {
            state.note(&lease.holder, "holds the Lease, transitions", &lease.transitions.to_string());
        }
        state.lease = Some(lease.clone());
        Ok(lease)
    })
    .await?
}

/// Until the Lease is held by `me`, in a term that it was not held in before.
pub(crate) async fn acquire(world: &World, me: &str) -> Lease {
    let duration = world.setup().lease;
    let mut observed: Option<(Lease, Instant)> = None;
    loop {
        let acquired = match get(world).await {
            Err(_) => Err(Failure::Unknown),
            Ok(None) => {
                let uid = format!("lease-{}", world.draw(0, 999_999));
                let first = Lease { uid, holder: me.to_owned(), transitions: 0, renewed: 0, resource: 0 };
                put(world, first, true).await
            }
            Ok(Some(lease)) if lease.holder == me => {
                // Election libraries leave the transitions as they are here: a process that cannot have a new name has to raise them
                // itself.
                let raised = lease.transitions + i32::from(world.scenario().raises_transitions);
                put(world, Lease { transitions: raised, ..lease }, false).await
            }
            Ok(Some(lease)) => match &observed {
                Some((known, since)) if *known == lease => {
                    if since.elapsed() < duration {
                        Err(Failure::Conflict)
                    } else {
                        let next = Lease { holder: me.to_owned(), transitions: lease.transitions + 1, ..lease };
                        put(world, next, false).await
                    }
                }
                _ => {
                    observed = Some((lease, Instant::now()));
                    Err(Failure::Conflict)
                }
            },
        };
        if let Ok(lease) = acquired {
            return lease;
        }
        sleep(world.draw(100, 500)).await;
    }
}

/// Renews the Lease for as long as it goes.
pub(crate) async fn renew(world: &World, mut lease: Lease) {
    let duration = world.setup().lease;
    let mut renewed = Instant::now();
    loop {
        sleep(u64::try_from(duration.as_millis()).unwrap() / 3).await;
        match put(world, lease.clone(), false).await {
            Ok(held) => (lease, renewed) = (held, Instant::now()),
            Err(Failure::Unknown) if renewed.elapsed() < duration => {}
            Err(Failure::Unknown) => return,
            // Perhaps its own renewal, whose answer was lost.
            Err(Failure::Conflict) => match get(world).await {
                Ok(Some(held)) if held.holder == lease.holder && held.transitions == lease.transitions => lease = held,
                Err(_) if renewed.elapsed() < duration => {}
                _ => return,
            },
        }
    }
}

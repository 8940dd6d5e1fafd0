//! `latest`: the newest sealed epoch.

use clap::Args;
use epochwarden_core::{Epoch, ShownEpoch, key};
use epochwarden_store::{Operation, Root, StoreError, list_epochs, list_registers};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use serde::Serialize;

use super::exit::{CliError, Exit};
use super::output::{OutputFlags, complain};
use super::store_flags::StoreFlags;

/// How many of the newest epochs are asked at once whether they are sealed.
const ASKED: usize = 8;

/// How often a root is looked at again that was pruned meanwhile.
const LOOKS: usize = 3;

/// Prints the number of the newest sealed epoch
///
/// Ends with 3 when no epoch is sealed.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  epochwarden latest --store s3://state/orders")]
pub(super) struct Latest {
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    pub(super) output: OutputFlags,
}

/// What programs are shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    latest_committed: ShownEpoch,
}

impl Latest {
    pub(super) async fn run(self) -> Result<Exit, CliError> {
        let root = self.store.open()?.root;
        let Some(latest_committed) = latest(&root).await? else {
            complain(&format!("no epoch is sealed in {root}"));
            return Ok(Exit::Findings);
        };
        let latest_committed = root.numbering().show(latest_committed);
        self.output.print(&Shown { latest_committed }, format!("{latest_committed}\n"))?;
        Ok(Exit::Done)
    }
}

/// The newest sealed epoch. The epochs are listed by folder, and only the newest are asked for their seals, from the top.
///
/// A seal can appear above the listing while a prune deletes what was listed. So the floor is read after that, and an answer below it is
/// looked for again.
async fn latest(root: &Root) -> Result<Option<Epoch>, StoreError> {
    let mut found = None;
    for _ in 0..LOOKS {
        found = newest_sealed(root, list_epochs(root).await?).await?;
        let floor = list_registers(root).await?.reading().floor;
        if found.unwrap_or(Epoch::ZERO) >= floor {
            break;
        }
    }
    Ok(found)
}

async fn newest_sealed(root: &Root, epochs: Vec<Epoch>) -> Result<Option<Epoch>, StoreError> {
    let seals = stream::iter(epochs.into_iter().rev())
        .map(|epoch| async move { is_sealed(root, epoch).await.map(|sealed| sealed.then_some(epoch)) })
        .buffered(ASKED)
        .try_filter_map(|sealed| std::future::ready(Ok(sealed)));
    std::pin::pin!(seals).try_next().await
}

async fn is_sealed(root: &Root, epoch: Epoch) -> Result<bool, StoreError> {
    let key = key::commit(epoch);
    match root.store().head(&root.path(&key)?).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(root.error(Operation::Head, &key, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;

    async fn root(keys: &[String]) -> Root {
        let root = Root::from_store(Arc::new(InMemory::new()));
        for key in keys {
            root.store().put(&root.path(key).unwrap(), "x".into()).await.unwrap();
        }
        root
    }

    #[tokio::test]
    async fn the_highest_number_with_a_seal_is_the_latest_however_many_are_in_flight_above_it() {
        let mut keys = vec![key::commit(Epoch::new(9)), key::commit(Epoch::new(10))];
        keys.extend((11..40).map(|epoch| format!("epoch={epoch}/vnode=0/partial.bin")));
        assert_eq!(latest(&root(&keys).await).await.unwrap(), Some(Epoch::new(10)));
    }

    #[tokio::test]
    async fn without_a_seal_there_is_no_latest() {
        assert_eq!(latest(&root(&[]).await).await.unwrap(), None);
        let unsealed = root(&["epoch=3/vnode=0/partial.bin".to_owned()]).await;
        assert_eq!(latest(&unsealed).await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_answer_below_the_floor_is_looked_for_again_and_no_more_often_than_that() {
        let root = root(&[key::commit(Epoch::new(3)), format!("_epochwarden/floor/{:020}", 8)]).await;
        let before = root.requests();
        assert_eq!(latest(&root).await.unwrap(), Some(Epoch::new(3)));
        assert_eq!((root.requests() - before).head, 3);
    }
}

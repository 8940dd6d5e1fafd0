use super::*;
use crate::root::RootSettings;

async fn folder(epochs: std::ops::RangeInclusive<u64>) -> (tempfile::TempDir, Root) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    let root = Root::open(&url, [], &RootSettings::default()).unwrap();
    for epoch in epochs {
        for name in ["vnode=0/partial.bin", "vnode=1/partial.bin", "app/notes", "_COMMIT"] {
            put(root.store(), &format!("epoch={epoch}/{name}")).await;
        }
    }
    (folder, root)
}

async fn prune(root: &Root) -> PruneReport {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let cancel = CancellationToken::new();
    run(root, &rules(2), &anybody(), Approval::Automatic, &Always, &clock, &cancel, &|_| ()).await.unwrap()
}

#[tokio::test]
async fn a_folder_is_left_without_empty_folders() {
    let (folder, root) = folder(1..=5).await;
    let report = prune(&root).await;
    assert_eq!((report.outcome, report.epochs, report.objects), (PruneOutcome::Succeeded, 3, 12));
    let names =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.collect::<BTreeSet<_>>(), ["_epochwarden", "epoch=4", "epoch=5"].map(str::to_owned).into());
    assert_eq!(prune(&root).await.epochs, 0);
}

#[tokio::test]
async fn keys_of_a_folder_that_is_gone_are_not_deleted() {
    let (folder, root) = folder(1..=2).await;
    let parts = Parts::default();
    let run = parts.run(&root);
    let key = "epoch=1/vnode=7/partial.bin".to_owned();
    let fate = |key: String| futures::StreamExt::collect::<Vec<_>>(run.delete(std::iter::once(key)));
    assert!(fate(key.clone()).await[0].1.is_ok(), "it never was there");
    folder.close().unwrap();
    assert!(fate(key).await[0].1.is_err(), "nothing is there");
}

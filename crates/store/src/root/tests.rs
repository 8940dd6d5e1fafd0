use std::time::Duration;

use object_store::ObjectStoreExt;

use super::*;
use crate::error::ErrorClass;
use crate::listing::{list_epochs, list_inventory, list_registers};

fn open(url: &str, options: &[(&str, &str)], settings: &RootSettings) -> Result<Root, StoreError> {
    Root::open(url, options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())), settings)
}

#[test]
fn without_credentials_nothing_looks_for_them_elsewhere() {
    let account = ("azure_storage_account_name", "acct");
    for (url, options) in [
        ("s3://state", vec![]),
        ("s3://state", vec![("aws_session_token", "t")]),
        ("s3://state", vec![("aws_skip_signature", "false")]),
        ("gs://state", vec![]),
        ("az://state", vec![account]),
        ("abfs://state@acct.dfs.core.windows.net", vec![]),
    ] {
        let error = open(url, &options, &RootSettings::default()).unwrap_err();
        assert_eq!(error.class(), ErrorClass::CredentialsNotAllowed, "{url}: {error}");
        // The same is fine where the environment's credentials are allowed: they are fetched with the first request.
        let ambient = RootSettings { ambient_credentials: true, ..RootSettings::default() };
        open(url, &options, &ambient).unwrap();
    }
}

#[test]
fn the_bucket_is_what_the_url_names_before_the_prefix() {
    let s3 = [("aws_region", "us-east-1"), ("aws_access_key_id", "a"), ("aws_secret_access_key", "b")];
    for (url, bucket) in
        [("s3://state", "s3://state"), ("s3://state/", "s3://state"), ("s3://state/orders/eu", "s3://state")]
    {
        let root = open(url, &s3, &RootSettings::default()).unwrap();
        assert_eq!(root.bucket(), bucket, "{url}");
    }
    let folder = tempfile::tempdir().unwrap();
    let root = open(&format!("file://{}", folder.path().display()), &[], &RootSettings::default()).unwrap();
    assert_eq!(root.bucket(), root.url());
}

#[test]
fn half_a_credential_is_refused_by_the_name_of_the_other_half() {
    let account = ("azure_storage_account_name", "acct");
    for (url, options, missing) in [
        ("s3://state", vec![("aws_access_key_id", "a")], "aws_secret_access_key"),
        ("s3://state", vec![("aws_secret_access_key", "a")], "aws_access_key_id"),
        ("az://state", vec![account, ("azure_storage_client_id", "a")], "azure_storage_client_secret"),
        ("az://state", vec![("azure_storage_account_key", "a")], "azure_storage_account_name"),
    ] {
        let error = open(url, &options, &RootSettings::default()).unwrap_err();
        assert!(matches!(&error, StoreError::InvalidOption { key, .. } if key == missing), "{error:?}");
    }
}

#[test]
fn a_builders_refusal_shows_no_credential() {
    for (url, options) in [
        ("gs://state", vec![("google_service_account_key", "hunter2")]),
        ("az://state", vec![("azure_storage_account_name", "acct"), ("azure_storage_account_key", "!hunter2!")]),
    ] {
        let error = open(url, &options, &RootSettings::default()).unwrap_err();
        assert_eq!(error.class(), ErrorClass::InvalidConfiguration, "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error} {error:?}");
    }
}

#[test]
fn nothing_secret_is_in_the_debug_form_of_a_root() {
    let options = [("aws_access_key_id", "AKIDHUNTER2"), ("aws_secret_access_key", "hunter2")];
    let root = open("s3://state/orders", &options, &RootSettings::default()).unwrap();
    let shown = format!("{root:?} {root} {:?}", RootSettings::default());
    assert!(shown.contains("s3://state/orders"), "{shown}");
    assert!(!shown.to_ascii_lowercase().contains("hunter2"), "{shown}");
}

#[test]
fn the_bounds_of_the_settings_and_of_the_options_both_hold() {
    let seconds = Duration::from_secs;
    let option = |text: &str| [("timeout".to_owned(), text.to_owned())];
    for (options, settings, expected) in [
        (vec![], RootSettings::default(), 30),
        (option("90s").to_vec(), RootSettings::default(), 90),
        (option("90s").to_vec(), RootSettings::default().for_fence(), 2),
        (option("1s").to_vec(), RootSettings::default().for_fence(), 1),
    ] {
        let options = options::Options::read(Provider::S3, options).unwrap();
        assert_eq!(settings.timeouts(&options).unwrap().request, seconds(expected));
    }
    assert_eq!(RootSettings::default().for_fence().retry().max_retries, 1);
    assert_eq!(RootSettings::default().retry().max_retries, object_store::RetryConfig::default().max_retries);
}

#[test]
fn keys_and_paths_are_each_others_inverse_below_the_prefix() {
    let memory = || Arc::new(object_store::memory::InMemory::new());
    for root in [Root::from_store(memory()), Root::from_store(memory()).with_prefix("a/b").unwrap()] {
        let path = root.path("epoch=5/_COMMIT").unwrap();
        assert_eq!(root.relative(&path), Some("epoch=5/_COMMIT"));
        assert!(matches!(root.path("a//b"), Err(StoreError::UnaddressableKey { .. })));
    }
    let root = Root::from_store(memory()).with_prefix("a/b").unwrap();
    for outside in ["a", "a/b", "a/bc/epoch=5/_COMMIT", "epoch=5/_COMMIT"] {
        assert_eq!(root.relative(&Path::parse(outside).unwrap()), None, "{outside}");
    }
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_no_empty_root() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("state");
    let url = format!("file://{}", folder.display());
    let error = open(&url, &[], &RootSettings::default()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::BucketNotFound, "{error}");

    std::fs::create_dir(&folder).unwrap();
    let root = open(&url, &[], &RootSettings::default()).unwrap();
    assert!(list_inventory(&root, Some(1)).await.unwrap().is_empty());
    std::fs::remove_dir(&folder).unwrap();
    for error in [
        list_inventory(&root, Some(1)).await.unwrap_err(),
        list_epochs(&root).await.unwrap_err(),
        list_registers(&root).await.unwrap_err(),
    ] {
        assert_eq!(error.class(), ErrorClass::BucketNotFound, "{error}");
    }

    std::fs::write(&folder, b"").unwrap();
    let error = open(&url, &[], &RootSettings::default()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::InvalidConfiguration, "{error}");
}

#[tokio::test]
async fn a_folder_keeps_no_empty_folders_and_takes_no_bucket_options() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    let error = open(&url, &[("allow_http", "true")], &RootSettings::default()).unwrap_err();
    assert!(matches!(error, StoreError::UnknownOption { .. }), "{error:?}");

    let root = open(&url, &[], &RootSettings::default()).unwrap();
    let path = root.path("epoch=5/vnode=0/partial.bin").unwrap();
    root.store().put(&path, "x".into()).await.unwrap();
    assert!(folder.path().join("epoch=5/vnode=0/partial.bin").is_file());
    root.store().delete(&path).await.unwrap();
    assert!(!folder.path().join("epoch=5").exists());
    assert_eq!(root.requests(), RequestCounts { put: 1, delete: 1, ..RequestCounts::default() });
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_whose_name_no_key_can_have_is_named() {
    use std::os::unix::ffi::OsStrExt;

    for name in [b"a\nb".as_slice(), b"a\xff"] {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().display());
        let root = open(&url, &[], &RootSettings::default()).unwrap();
        std::fs::create_dir(folder.path().join("epoch=5")).unwrap();
        std::fs::write(folder.path().join("epoch=5").join(std::ffi::OsStr::from_bytes(name)), b"").unwrap();
        let error = list_inventory(&root, Some(1)).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::UnaddressableKey, "{error:?}");
        assert!(error.to_string().contains("epoch=5"), "{error}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_root_works_in_the_folder_that_its_links_led_to_when_it_was_opened() {
    let here = tempfile::tempdir().unwrap();
    let top = here.path().canonicalize().unwrap();
    for name in ["one", "two"] {
        std::fs::create_dir(top.join(name)).unwrap();
    }
    let link = top.join("link");
    std::os::unix::fs::symlink(top.join("one"), &link).unwrap();
    let root = Root::open(&format!("file://{}", link.display()), [], &RootSettings::default()).unwrap();
    assert_eq!(root.folder(), Some(top.join("one").as_path()));
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(top.join("two"), &link).unwrap();
    let key = root.path("epoch=1/_COMMIT").unwrap();
    object_store::ObjectStoreExt::put(root.store().as_ref(), &key, "a".into()).await.unwrap();
    assert!(top.join("one/epoch=1/_COMMIT").is_file() && !top.join("two/epoch=1").exists());
    assert_eq!(root.folder(), Some(top.join("one").as_path()));
}

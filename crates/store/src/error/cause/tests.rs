use std::time::Duration;

use object_store::{ObjectStore, ObjectStoreExt, PutMode};

use super::*;
use crate::error::StoreError;
use crate::http::answers::{Server, error_body, open, page};
use crate::listing::list_inventory;
use crate::observe::Operation;
use crate::root::{Root, RootSettings};

fn settings() -> RootSettings {
    RootSettings { max_retries: Some(0), ..RootSettings::default() }
}

async fn ask(root: &Root, operation: Operation) -> StoreError {
    let path = root.path("k").unwrap();
    let error = match operation {
        Operation::List => return list_inventory(root, None).await.unwrap_err(),
        Operation::Get => root.store().get(&path).await.map(drop),
        Operation::Head => root.store().head(&path).await.map(drop),
        Operation::Put => root.store().put_opts(&path, "x".into(), PutMode::Create.into()).await.map(drop),
        Operation::Delete => root.store().delete(&path).await,
    };
    root.error(operation, "k", error.unwrap_err())
}

#[tokio::test]
async fn a_refusal_is_classified_by_status_and_code() {
    use ErrorClass::{AccessDenied, BucketNotFound, Conflict, InvalidConfiguration, NotFound, Unreachable};
    use Operation::{Delete, Get, Head, List, Put};
    for (operation, status, code, expected) in [
        (List, 401, "Unauthorized", AccessDenied),
        (List, 403, "AccessDenied", AccessDenied),
        (Get, 403, "InvalidAccessKeyId", AccessDenied),
        (Head, 403, "", AccessDenied),
        (Put, 403, "AccessDenied", AccessDenied),
        (Delete, 403, "AccessDenied", AccessDenied),
        (List, 400, "ExpiredToken", AccessDenied),
        (List, 404, "NoSuchBucket", BucketNotFound),
        (List, 404, "", BucketNotFound),
        (Get, 404, "NoSuchBucket", BucketNotFound),
        (Put, 404, "NoSuchBucket", BucketNotFound),
        (List, 404, "ContainerNotFound", BucketNotFound),
        (Get, 404, "NoSuchKey", NotFound),
        (Head, 404, "", NotFound),
        (Put, 412, "PreconditionFailed", Conflict),
        (Put, 409, "ConditionalRequestConflict", Conflict),
        (List, 301, "PermanentRedirect", InvalidConfiguration),
        (List, 400, "AuthorizationHeaderMalformed", InvalidConfiguration),
        (List, 500, "InternalError", Unreachable),
        (Get, 503, "SlowDown", Unreachable),
        (Get, 429, "", Unreachable),
    ] {
        let server = Server::start(move |_, _| {
            let body = if code.is_empty() { String::new() } else { error_body(code, "because") };
            Some((status, "", body))
        })
        .await;
        let error = ask(&server.s3(&settings()), operation).await;
        assert_eq!(error.class(), expected, "{operation} {status} {code}: {error}");
        let said = error.to_string();
        assert!(said.starts_with(&format!("cannot {operation} s3://state/orders/")), "{said}");
        // A redirect without a body keeps nothing but its status; a create's condition is named by the client.
        let shown = !matches!(status, 301 | 409 | 412) && operation != Head && !code.is_empty();
        assert!(!shown || said.contains(&format!("HTTP {status} {code} (because)")), "{said}");
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_is_unreachable() {
    let silent = Server::start(|_, _| None).await;
    let hasty = RootSettings { timeout: Some(Duration::from_millis(200)), ..settings() };
    let error = ask(&silent.s3(&hasty), Operation::Get).await;
    assert_eq!(error.class(), ErrorClass::Unreachable, "{error}");
    assert!(error.to_string().contains("no answer in time"), "{error}");

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let options = [("aws_endpoint", url.as_str()), ("aws_skip_signature", "true"), ("allow_http", "true")];
    for operation in [Operation::List, Operation::Get, Operation::Put] {
        let error = ask(&open("s3://state", &options, &settings()), operation).await;
        assert_eq!(error.class(), ErrorClass::Unreachable, "{error}");
        assert!(error.to_string().contains("no connection"), "{error}");
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_addressed_is_named() {
    for key in ["orders/a//b", "orders/epoch=5/./x", "orders/../x"] {
        let server = Server::start(move |_, _| Some((200, "", page(&["orders/epoch=5/_COMMIT", key], None)))).await;
        let error = list_inventory(&server.s3(&settings()), Some(1)).await.unwrap_err();
        assert!(matches!(&error, StoreError::UnaddressableKey { key: named } if named == key), "{error:?}");
    }
}

#[test]
fn a_long_message_is_cut_and_a_missing_one_is_none() {
    let long = format!("<Message>{}</Message>", "é".repeat(1000));
    assert_eq!(element(&long, "Message").map(|text| text.chars().count()), Some(300));
    assert_eq!(element("<Code></Code>", "Code"), None);
    assert_eq!(element("<Code>a", "Code"), None);
}

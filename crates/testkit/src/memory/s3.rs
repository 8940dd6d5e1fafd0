//! S3: what its clients ask and are answered.

use hyper::header::{CONTENT_TYPE, ETAG, LAST_MODIFIED};
use hyper::{Method, StatusCode};
use md5::{Digest, Md5};

use super::http::{Asked, Reply, error, listed, not_implemented, page, reply};
use super::objects::{Buckets, Object};
use super::xml;
use crate::tools;

/// The most keys of one request that deletes many.
const KEYS: usize = 1000;

pub(super) fn answer(buckets: &mut Buckets, asked: &Asked) -> Reply {
    match (&asked.method, asked.key.is_empty()) {
        (&Method::GET, true) => match page(buckets, asked) {
            Ok(page) => listed(asked, &page, row),
            Err(refused) => refused,
        },
        (&Method::POST, true) if asked.query.contains_key("delete") && asked.only_asks(&["delete"]) => {
            delete_many(buckets, asked)
        }
        (_, false) if !asked.query.is_empty() => not_implemented("a parameter of the request"),
        (&Method::PUT, false) => put(buckets, asked),
        (&Method::GET | &Method::HEAD, false) => get(buckets, asked),
        (&Method::DELETE, false) => {
            // The key need not be there.
            buckets.get_mut(&asked.bucket).map(|objects| objects.delete(&asked.key));
            reply(StatusCode::NO_CONTENT, &[], "")
        }
        _ => not_implemented("this method"),
    }
}

fn etag(object: &Object) -> String {
    format!("\"{}\"", tools::hex(&Md5::digest(&object.body)))
}

fn row(key: &str, object: &Object) -> String {
    [
        xml::element("Key", key),
        // S3 knows whole seconds, and writes as if it knew more.
        xml::element("LastModified", &object.modified().format("%Y-%m-%dT%H:%M:%S.000Z").to_string()),
        xml::element("ETag", &etag(object)),
        xml::element("Size", &object.body.len().to_string()),
        xml::element("StorageClass", "STANDARD"),
    ]
    .concat()
}

fn put(buckets: &mut Buckets, asked: &Asked) -> Reply {
    let is_there = buckets.get(&asked.bucket).is_some_and(|objects| objects.get(&asked.key).is_some());
    match asked.header("if-none-match") {
        Some("*") if is_there => {
            return error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", "there is such a key");
        }
        None | Some("*") => {}
        Some(_) => return not_implemented("If-None-Match with anything but *"),
    }
    if asked.header("x-amz-copy-source").is_some() {
        return not_implemented("copies");
    }
    match buckets.put(&asked.bucket, &asked.key, asked.body.clone()) {
        Ok(object) => reply(StatusCode::OK, &[(ETAG.as_str(), &etag(&object))], ""),
        Err(_) => error(StatusCode::NOT_FOUND, "NoSuchBucket", "there is no such bucket"),
    }
}

fn get(buckets: &Buckets, asked: &Asked) -> Reply {
    if asked.header("if-none-match").is_some() {
        return not_implemented("conditional reads");
    }
    let Some(object) = buckets.get(&asked.bucket).and_then(|objects| objects.get(&asked.key)) else {
        return error(StatusCode::NOT_FOUND, "NoSuchKey", "there is no such key");
    };
    let modified = object.modified().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let headers = [
        (CONTENT_TYPE.as_str(), "application/octet-stream"),
        (ETAG.as_str(), &etag(object)),
        (LAST_MODIFIED.as_str(), &modified),
    ];
    reply(StatusCode::OK, &headers, object.body.clone())
}

/// Says of every key that it is deleted, whether it was there or not.
fn delete_many(buckets: &mut Buckets, asked: &Asked) -> Reply {
    let Ok(text) = std::str::from_utf8(&asked.body) else {
        return error(StatusCode::BAD_REQUEST, "MalformedXML", "the body is no text");
    };
    let keys: Vec<String> = xml::texts(text, "Key").collect();
    if keys.is_empty() || keys.len() > KEYS {
        return error(StatusCode::BAD_REQUEST, "MalformedXML", "a request deletes one to 1,000 keys");
    }
    let mut deleted = String::new();
    for key in &keys {
        buckets.get_mut(&asked.bucket).map(|objects| objects.delete(key));
        deleted.push_str(&xml::around("Deleted", &xml::element("Key", key)));
    }
    reply(StatusCode::OK, &[(CONTENT_TYPE.as_str(), "application/xml")], xml::document("DeleteResult", &deleted))
}

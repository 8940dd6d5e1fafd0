//! Google Cloud Storage, as its XML API is documented; each answer names the page that describes it, below
//! <https://cloud.google.com/storage/docs>.
//!
//! A bucket is as consistent as `/consistency` promises it: what was acknowledged is what the next read and the next listing show.

use hyper::header::{CONTENT_TYPE, ETAG, LAST_MODIFIED};
use hyper::{Method, StatusCode};

use super::http::{Asked, Reply, error, listed, not_implemented, page, reply};
use super::objects::{Buckets, Object};
use super::xml;

/// The generation of the first write: microseconds since 1970, as they are there, of the first of January 2026.
const FIRST_GENERATION: u64 = 1_767_225_600_000_000;

const IF_GENERATION_MATCH: &str = "x-goog-if-generation-match";

/// One object is deleted by one request; `object_store` makes no use of the requests that delete many.
pub(super) fn answer(buckets: &mut Buckets, asked: &Asked) -> Reply {
    if asked.headers.keys().any(|name| name.as_str().starts_with("x-goog-") && name != IF_GENERATION_MATCH) {
        return not_implemented("a header of the request");
    }
    match (&asked.method, asked.key.is_empty()) {
        (&Method::GET, true) => list(buckets, asked),
        (_, false) if !asked.query.is_empty() => not_implemented("a parameter of the request"),
        (&Method::PUT, false) => put(buckets, asked),
        (&Method::GET | &Method::HEAD, false) => get(buckets, asked),
        (&Method::DELETE, false) => delete(buckets, asked),
        _ => not_implemented("this method"),
    }
}

/// A number that rises with every write (`/metadata#generation-number`).
fn generation(object: &Object) -> u64 {
    FIRST_GENERATION + object.write
}

/// Something that changes with the object and says nothing else: nobody may take it for the MD5 of the body
/// (`/hashes-etags#etags`).
fn etag(object: &Object) -> String {
    format!("\"C{:x}EAE=\"", generation(object))
}

/// `/xml-api/get-bucket-list`: by name, ascending; `delimiter` may be several characters; `continuation-token` continues a listing of
/// the second version and `start-after` begins one; at most 1,000 rows in a page; each object with its generation.
fn list(buckets: &Buckets, asked: &Asked) -> Reply {
    let row = |key: &str, object: &Object| {
        [
            xml::element("Key", key),
            xml::element("Generation", &generation(object).to_string()),
            xml::element("MetaGeneration", "1"),
            xml::element("LastModified", &object.modified().format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()),
            xml::element("ETag", &etag(object)),
            xml::element("Size", &object.body.len().to_string()),
        ]
        .concat()
    };
    match page(buckets, asked) {
        Ok(page) => listed(asked, &page, row),
        Err(refused) => refused,
    }
}

/// `/xml-api/put-object-upload`: 200 with generation, metageneration, stored length and `ETag` in headers. With
/// `x-goog-if-generation-match` (`/xml-api/reference-headers#xgoogifgenerationmatch`) only where the object has that generation; 0 stands for no live object
/// (`/request-preconditions`). Otherwise 412 `PreconditionFailed` (`/xml-api/reference-status#412precondition`).
fn put(buckets: &mut Buckets, asked: &Asked) -> Reply {
    let stands = buckets.get(&asked.bucket).and_then(|objects| objects.get(&asked.key)).map_or(0, generation);
    match asked.header(IF_GENERATION_MATCH).map(str::parse::<u64>) {
        Some(Ok(wanted)) if wanted != stands => {
            return error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", "the object has another generation");
        }
        Some(Err(_)) => return error(StatusCode::BAD_REQUEST, "InvalidArgument", "the generation is no number"),
        Some(Ok(_)) | None => {}
    }
    match buckets.put(&asked.bucket, &asked.key, asked.body.clone()) {
        Ok(object) => described(&object, ""),
        Err(_) => error(StatusCode::NOT_FOUND, "NoSuchBucket", "there is no such bucket"),
    }
}

/// `/xml-api/get-object-download` and `/xml-api/head-object`: the body, or nothing of it, under the same headers. 404 `NoSuchKey` where
/// there is none (`/xml-api/reference-status#404nosuchkey`).
fn get(buckets: &Buckets, asked: &Asked) -> Reply {
    if asked.headers.contains_key(IF_GENERATION_MATCH) || asked.headers.contains_key("if-none-match") {
        return not_implemented("conditional reads");
    }
    match buckets.get(&asked.bucket).and_then(|objects| objects.get(&asked.key)) {
        Some(object) => described(object, object.body.clone()),
        None => no_such_key(),
    }
}

/// `/xml-api/delete-object`: 204, or 404 `NoSuchKey` where there is none.
fn delete(buckets: &mut Buckets, asked: &Asked) -> Reply {
    if asked.headers.contains_key(IF_GENERATION_MATCH) {
        return not_implemented("conditional deletes");
    }
    let deleted = buckets.get_mut(&asked.bucket).is_some_and(|objects| objects.delete(&asked.key));
    if deleted { reply(StatusCode::NO_CONTENT, &[], "") } else { no_such_key() }
}

fn no_such_key() -> Reply {
    error(StatusCode::NOT_FOUND, "NoSuchKey", "there is no such object")
}

fn described(object: &Object, body: impl Into<bytes::Bytes>) -> Reply {
    let headers = [
        (CONTENT_TYPE.as_str(), "application/octet-stream"),
        (ETAG.as_str(), &etag(object)),
        (LAST_MODIFIED.as_str(), &object.modified().format("%a, %d %b %Y %H:%M:%S GMT").to_string()),
        ("x-goog-generation", &generation(object).to_string()),
        ("x-goog-metageneration", "1"),
        ("x-goog-stored-content-length", &object.body.len().to_string()),
    ];
    reply(StatusCode::OK, &headers, body)
}

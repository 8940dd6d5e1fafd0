//! What the buckets hold, and how it is listed.

use std::collections::BTreeMap;
use std::ops::Bound;

use anyhow::Context;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use crate::tools;

/// The most rows of one page.
pub(super) const PAGE: usize = 1000;

/// The last character there is: nothing that a key goes on with sorts after it.
const LAST: char = char::MAX;

/// When the first write of a server was made, in seconds since 1970: the first of January 2026.
const BEGINNING: i64 = 1_767_225_600;

/// One object.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) body: Bytes,
    /// Which write of its server it was, from 1.
    pub(super) write: u64,
}

impl Object {
    /// When it was written.
    pub(super) fn modified(&self) -> DateTime<Utc> {
        let since = TimeDelta::try_milliseconds(self.write.try_into().unwrap_or(i64::MAX)).unwrap_or(TimeDelta::MAX);
        DateTime::from_timestamp(BEGINNING, 0).and_then(|first| first.checked_add_signed(since)).unwrap_or_default()
    }
}

/// One bucket.
#[derive(Debug, Default)]
pub(super) struct Objects {
    by_key: BTreeMap<String, Object>,
}

/// What a listing asks for.
#[derive(Debug, Default)]
pub(super) struct Query<'a> {
    pub(super) prefix: &'a str,
    /// Empty for none.
    pub(super) delimiter: &'a str,
    /// Where the page before ended.
    pub(super) token: Option<&'a str>,
    /// The key after which the first page begins.
    pub(super) after: Option<&'a str>,
    pub(super) rows: usize,
}

/// One page of a listing.
#[derive(Debug, Default)]
pub(super) struct Page<'a> {
    pub(super) objects: Vec<(&'a str, &'a Object)>,
    pub(super) folders: Vec<String>,
    /// Where the next page begins; `None` when there is none.
    pub(super) next: Option<String>,
}

impl Objects {
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn get(&self, key: &str) -> Option<&Object> {
        self.by_key.get(key)
    }

    /// Whether it was there.
    pub(super) fn delete(&mut self, key: &str) -> bool {
        self.by_key.remove(key).is_some()
    }

    /// The keys that begin with the prefix, ascending; those in which the delimiter follows it, once for all that are the same up to
    /// and with the delimiter. It costs one look-up for each row, however many keys a row stands for.
    pub(super) fn list(&self, query: &Query<'_>) -> Option<Page<'_>> {
        let mut page = Page::default();
        let mut from = match (query.token, query.after) {
            (Some(token), _) => Bound::Excluded(read_token(token)?),
            (None, Some(after)) if after >= query.prefix => Bound::Excluded(after.to_owned()),
            _ => Bound::Included(query.prefix.to_owned()),
        };
        let mut last = None;
        loop {
            let range = self.by_key.range::<str, _>((from.as_ref().map(String::as_str), Bound::Unbounded));
            let mut skip = None;
            for (key, object) in range {
                let Some(rest) = key.strip_prefix(query.prefix) else { return Some(page) };
                if page.objects.len() + page.folders.len() >= query.rows {
                    page.next = last.as_deref().map(token_of);
                    return Some(page);
                }
                let cut = Some(query.delimiter).filter(|delimiter| !delimiter.is_empty());
                if let Some((folder, _)) = cut.and_then(|delimiter| rest.split_once(delimiter)) {
                    let folder = format!("{}{folder}{}", query.prefix, query.delimiter);
                    // The next row is the first one beyond this folder.
                    skip = Some(format!("{folder}{LAST}"));
                    page.folders.push(folder);
                    break;
                }
                page.objects.push((key, object));
                last = Some(key.clone());
            }
            let Some(beyond) = skip else { return Some(page) };
            last = Some(beyond.clone());
            from = Bound::Excluded(beyond);
        }
    }
}

/// A token, in a form that no client can take for a key.
fn token_of(position: &str) -> String {
    tools::hex(position.as_bytes())
}

fn read_token(token: &str) -> Option<String> {
    let digits = token.as_bytes().chunks(2);
    let bytes = digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    String::from_utf8(bytes.collect::<Option<_>>()?).ok()
}

/// The buckets of one server.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    by_name: BTreeMap<String, Objects>,
    writes: u64,
}

impl Buckets {
    /// `false` when it is there already.
    pub(super) fn create(&mut self, name: &str) -> bool {
        let is_new = !self.by_name.contains_key(name);
        self.by_name.entry(name.to_owned()).or_default();
        is_new
    }

    pub(super) fn get(&self, bucket: &str) -> Option<&Objects> {
        self.by_name.get(bucket)
    }

    pub(super) fn get_mut(&mut self, bucket: &str) -> Option<&mut Objects> {
        self.by_name.get_mut(bucket)
    }

    /// Writes an object over what stands there; fails where there is no such bucket.
    pub(super) fn put(&mut self, bucket: &str, key: &str, body: Bytes) -> anyhow::Result<Object> {
        let objects = self.by_name.get_mut(bucket).context("no such bucket")?;
        self.writes += 1;
        let object = Object { body, write: self.writes };
        objects.by_key.insert(key.to_owned(), object.clone());
        Ok(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(keys: &[&str]) -> Buckets {
        let mut buckets = Buckets::default();
        assert!(buckets.create("b") && !buckets.create("b"));
        for key in keys {
            buckets.put("b", key, Bytes::new()).unwrap();
        }
        buckets
    }

    /// All rows page by page, folders with a `*`.
    fn rows(buckets: &Buckets, query: &Query<'_>) -> Vec<String> {
        let (mut rows, mut token) = (Vec::new(), None);
        loop {
            let query = Query { token: token.as_deref(), ..*query };
            let page = buckets.get("b").unwrap().list(&query).unwrap();
            assert!(page.objects.len() + page.folders.len() <= query.rows);
            let folders = page.folders.iter().map(|folder| format!("{folder}*"));
            let mut of_page: Vec<String> =
                page.objects.iter().map(|(key, _)| (*key).to_owned()).chain(folders).collect();
            of_page.sort();
            rows.append(&mut of_page);
            token = page.next;
            if token.is_none() {
                return rows;
            }
        }
    }

    #[test]
    fn a_listing_is_the_same_in_pages_of_any_size() {
        let keys =
            ["epoch=1/_COMMIT", "epoch=1/vnode=0/p", "epoch=1/vnode=1/p", "epoch=10/vnode=0/p", "epoch=2/_COMMIT", "x"];
        let buckets = bucket(&keys);
        for rows_per_page in 1..=7 {
            let query = |prefix, delimiter, after| Query { prefix, delimiter, after, token: None, rows: rows_per_page };
            assert_eq!(rows(&buckets, &query("", "", None)), keys);
            assert_eq!(rows(&buckets, &query("epoch=2", "", None)), ["epoch=2/_COMMIT"]);
            let index = ["epoch=1/_COMMIT", "epoch=1/vnode=*", "epoch=10/vnode=*", "epoch=2/_COMMIT"];
            assert_eq!(rows(&buckets, &query("epoch=", "/vnode=", None)), index);
            assert_eq!(rows(&buckets, &query("epoch=", "/vnode=", Some("epoch=1/vnode=0/p"))), &index[1..]);
            assert_eq!(rows(&buckets, &query("", "/", None)), ["epoch=1/*", "epoch=10/*", "epoch=2/*", "x"]);
            assert_eq!(rows(&buckets, &query("", "", Some("epoch=10/vnode=0/p"))), &keys[4..]);
            assert_eq!(rows(&buckets, &query("epoch=2", "", Some("a"))), ["epoch=2/_COMMIT"]);
        }
    }

    #[test]
    fn a_token_that_nobody_gave_is_refused() {
        let buckets = bucket(&["a"]);
        let query = Query { token: Some("epoch=1"), rows: 1, ..Query::default() };
        assert!(buckets.get("b").unwrap().list(&query).is_none());
    }

    #[test]
    fn the_same_writes_give_the_same_times() {
        let times = || {
            let buckets = bucket(&["a", "b"]);
            ["a", "b"].map(|key| buckets.get("b").unwrap().get(key).unwrap().modified())
        };
        let [first, second] = times();
        assert_eq!(times(), [first, second]);
        assert_eq!((second - first).num_milliseconds(), 1);
    }
}

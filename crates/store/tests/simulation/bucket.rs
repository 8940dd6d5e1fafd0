//! The objects that are there, as nobody in the simulation but the oracle can see them: all at one instant.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use epochwarden_core::key::{self, Key};
use epochwarden_core::register::{Reading, RegisterKind};
use epochwarden_core::{Epoch, Vnode};
use md5::{Digest, Md5};
use object_store::ObjectMeta;
use object_store::path::Path;

/// One object.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) body: Bytes,
    pub(crate) meta: ObjectMeta,
    /// The millisecond of the run at which it was written.
    pub(crate) written: u64,
}

/// All objects by their keys.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    objects: BTreeMap<String, Object>,
    /// Rises with every change.
    generation: u64,
}

/// A part of a listing, as one request gives it.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) objects: Vec<ObjectMeta>,
    pub(crate) folders: Vec<Path>,
    /// After which key the next part begins; `None` at the end.
    pub(crate) next: Option<String>,
}

impl Bucket {
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Object> {
        self.objects.get(key)
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        self.objects.contains_key(key)
    }

    /// Writes, with the times and the `ETag` of an S3 store: whole seconds, and the MD5 of the body.
    pub(crate) fn put(&mut self, key: &str, body: Bytes, now: DateTime<Utc>, written: u64) -> ObjectMeta {
        let whole = DateTime::from_timestamp(now.timestamp(), 0).unwrap();
        let meta = ObjectMeta {
            location: Path::parse(key).unwrap(),
            last_modified: whole,
            size: body.len() as u64,
            e_tag: Some(etag(&body)),
            version: None,
        };
        self.objects.insert(key.to_owned(), Object { body, meta: meta.clone(), written });
        self.generation += 1;
        meta
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<Object> {
        self.generation += 1;
        self.objects.remove(key)
    }

    /// What comes after `cursor` below a raw prefix: at most `most` keys and folders, in the order of their bytes.
    pub(crate) fn list(&self, prefix: &str, delimiter: Option<&str>, cursor: Option<&str>, most: usize) -> Part {
        let mut part = Part::default();
        let start = match cursor {
            Some(cursor) if cursor >= prefix => Bound::Excluded(cursor.to_owned()),
            _ => Bound::Included(prefix.to_owned()),
        };
        let mut last = cursor.map(str::to_owned);
        let mut folder: Option<String> = None;
        for (key, object) in self.objects.range((start, Bound::Unbounded)) {
            if !key.starts_with(prefix) {
                break;
            }
            if folder.as_deref().is_some_and(|folder| key.starts_with(folder)) {
                continue;
            }
            if part.objects.len() + part.folders.len() == most {
                part.next = last;
                return part;
            }
            let cut = delimiter.and_then(|delimiter| Some((key[prefix.len()..].find(delimiter)?, delimiter.len())));
            if let Some((at, length)) = cut {
                let whole = &key[..prefix.len() + at + length];
                part.folders.push(Path::parse(whole).unwrap());
                // Behind every key of the folder.
                last = Some(format!("{whole}\u{10ffff}"));
                folder = Some(whole.to_owned());
            } else {
                part.objects.push(object.meta.clone());
                last = Some(key.clone());
            }
        }
        part
    }

    /// The registers as they stand.
    pub(crate) fn registers(&self) -> Reading {
        let mut reading = Reading::default();
        for kind in RegisterKind::ALL {
            let folder = format!("{}/", key::register_folder(kind));
            let above = format!("{folder}\u{10ffff}");
            if let Some((key, _)) = self.objects.range(folder..above).next_back()
                && let Key::Register { kind, number } = Key::parse(key)
            {
                reading.observe(kind, number);
            }
        }
        reading
    }

    /// The keys of all register records.
    pub(crate) fn register_keys(&self) -> Vec<String> {
        let folder = format!("{}/", key::REGISTERS);
        self.objects.range(folder.clone()..format!("{folder}\u{10ffff}")).map(|(key, _)| key.clone()).collect()
    }

    pub(crate) fn seal(&self, epoch: u64) -> Option<&Object> {
        self.get(&key::commit(Epoch::new(epoch)))
    }

    /// Whether the partials of all vnodes are there.
    pub(crate) fn is_complete(&self, epoch: u64, vnodes: u32) -> bool {
        (0..vnodes).all(|vnode| self.contains(&key::partial(Epoch::new(epoch), Vnode::new(vnode))))
    }

    /// All sealed epochs, ascending.
    pub(crate) fn sealed(&self) -> Vec<u64> {
        let epochs = self.objects.range("epoch=".to_owned().."epoch>".to_owned());
        let mut sealed: Vec<u64> = epochs
            .filter(|(key, _)| key.ends_with("/_COMMIT"))
            .filter_map(|(key, _)| match Key::parse(key) {
                Key::Commit { epoch } => Some(epoch.get()),
                _ => None,
            })
            .collect();
        sealed.sort_unstable();
        sealed
    }
}

/// As S3 says it of a plain object.
fn etag(body: &[u8]) -> String {
    format!("\"{:032x}\"", u128::from_be_bytes(Md5::digest(body).into()))
}

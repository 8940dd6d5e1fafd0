//! The keys of one probe.

use epochwarden_core::key::REGISTERS;
use uuid::Uuid;

/// How many folders it makes.
const FOLDERS: u8 = 3;

/// The folder of all probes, without a trailing slash.
pub(super) fn folder() -> String {
    format!("{REGISTERS}/probe")
}

/// The keys of one probe: one that is raced for, and folders that look like epochs.
///
/// Each has a UUID of its own. They differ in one group only, so that a raw prefix lists them and nobody else's.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    uuid: Uuid,
}

impl Keys {
    pub(super) fn new() -> Self {
        Self { uuid: Uuid::new_v4() }
    }

    fn key(&self, number: u8) -> String {
        let mut bytes = *self.uuid.as_bytes();
        let [_, _, _, _, high, low, ..] = &mut bytes;
        (*high, *low) = (0, number);
        format!("{}/{}", folder(), Uuid::from_bytes(bytes))
    }

    /// What begins all of them and stands for this probe alone.
    pub(super) fn start(&self) -> String {
        let key = self.key(0);
        let group = key.find('-').map_or(key.len(), |dash| dash + 1);
        key.get(..group).unwrap_or(&key).to_owned()
    }

    /// The key that is raced for.
    pub(super) fn raced(&self) -> String {
        self.key(0)
    }

    /// The folders, ascending.
    pub(super) fn folders(&self) -> Vec<String> {
        (1..=FOLDERS).map(|number| self.key(number)).collect()
    }

    /// One key straight in each folder, as an epoch's seal is. Their first one is overwritten.
    pub(super) fn seals(&self) -> Vec<String> {
        self.folders().iter().map(|folder| format!("{folder}/_COMMIT")).collect()
    }

    /// The key that is overwritten.
    pub(super) fn overwritten(&self) -> String {
        format!("{}/_COMMIT", self.key(1))
    }

    /// A key that is never written.
    pub(super) fn missing(&self) -> String {
        self.key(FOLDERS + 1)
    }

    /// All that are written, ascending.
    pub(super) fn written(&self) -> Vec<String> {
        let of_folder = |folder: String| ["_COMMIT", "vnode=0", "vnode=1"].map(|name| format!("{folder}/{name}"));
        let mut keys = vec![self.raced()];
        keys.extend(self.folders().into_iter().flat_map(of_folder));
        keys
    }

    /// What a listing below [`Keys::start`] with the delimiter `/vnode=` shows instead of the keys of vnodes.
    pub(super) fn common_prefixes(&self) -> Vec<String> {
        self.folders().iter().map(|folder| format!("{folder}/vnode=")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use epochwarden_core::key::Key;

    #[test]
    fn all_keys_lie_below_the_probes_folder_under_uuids_with_a_start_of_their_own() {
        let keys = Keys::new();
        let mut all = keys.written();
        assert!(all.is_sorted());
        assert_eq!(all.len(), 10);
        all.push(keys.missing());
        for key in &all {
            assert_eq!(Key::parse(key), Key::Probe, "{key}");
            let uuid = key.strip_prefix("_epochwarden/probe/").unwrap().split('/').next().unwrap();
            assert_eq!(Uuid::parse_str(uuid).unwrap().get_version_num(), 4, "{key}");
            assert!(key.starts_with(&keys.start()), "{key}");
        }
        assert_eq!(keys.start().len(), "_epochwarden/probe/".len() + 9);
        assert!(keys.written().contains(&keys.overwritten()));
        assert!(keys.seals().iter().all(|seal| keys.written().contains(seal)));
    }
}

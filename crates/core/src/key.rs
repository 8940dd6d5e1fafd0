//! The keys of a store root, both ways: from a listing to their meaning, and from a meaning to the key.

use crate::epoch::{Epoch, Vnode};
use crate::register::RegisterKind;

/// Everything of ours that is not an epoch lives below this folder.
pub const REGISTERS: &str = "_epochwarden";

/// The name of the seal inside an epoch's folder.
const COMMIT: &str = "_COMMIT";
/// The name of a newer layout's seal inside an epoch's folder.
const NEWER_SEAL: &str = "_SEAL";
/// The name of a vnode's object inside its folder.
const PARTIAL: &str = "partial.bin";

/// What a key below the store root means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// `epoch={N}/vnode={V}/partial.bin`: a vnode's state.
    Partial {
        /// The epoch.
        epoch: Epoch,
        /// The vnode.
        vnode: Vnode,
    },
    /// `epoch={N}/_COMMIT`: the seal.
    Commit {
        /// The epoch.
        epoch: Epoch,
    },
    /// Anything else below `epoch={N}/`: the application's, pruned with its epoch.
    Extra {
        /// The epoch.
        epoch: Epoch,
    },
    /// `epoch={N}` itself. A folder marker `epoch={N}/` is listed by this name and cannot be deleted by it.
    FolderMarker {
        /// The epoch.
        epoch: Epoch,
    },
    /// `_epochwarden/{register}/{number:020}`: one record of a register.
    Register {
        /// Which register.
        kind: RegisterKind,
        /// The record's value: its name.
        number: u64,
    },
    /// Below `_epochwarden/probe/`.
    Probe,
    /// The mark of a layout newer than this one: the whole root is left alone.
    NewerLayout,
    /// None of these. Never deleted, only reported.
    Foreign,
}

impl Key {
    /// Reads a key relative to the store root.
    #[must_use]
    pub fn parse(key: &str) -> Self {
        let (top, rest) = match key.split_once('/') {
            Some((top, rest)) => (top, Some(rest)),
            None => (key, None),
        };
        if top == REGISTERS {
            return rest.map_or(Self::Foreign, Self::parse_register);
        }
        if top.starts_with("state-v") && rest.is_some() {
            return Self::NewerLayout;
        }
        let Some(epoch) = top.strip_prefix("epoch=").and_then(|number| number.parse().ok()) else {
            return Self::Foreign;
        };
        match rest {
            None => Self::FolderMarker { epoch },
            Some(rest) => Self::parse_in_epoch(epoch, rest),
        }
    }

    fn parse_in_epoch(epoch: Epoch, rest: &str) -> Self {
        match rest {
            COMMIT => Self::Commit { epoch },
            NEWER_SEAL => Self::NewerLayout,
            _ => rest
                .strip_prefix("vnode=")
                .and_then(|rest| rest.split_once('/'))
                .filter(|(_, name)| *name == PARTIAL)
                .and_then(|(vnode, _)| vnode.parse().ok())
                .map_or(Self::Extra { epoch }, |vnode| Self::Partial { epoch, vnode }),
        }
    }

    fn parse_register(rest: &str) -> Self {
        let Some((folder, name)) = rest.split_once('/') else {
            return Self::Foreign;
        };
        if folder == "probe" {
            return Self::Probe;
        }
        let kind = RegisterKind::ALL.into_iter().find(|kind| kind.folder() == folder);
        match (kind, parse_padded(name)) {
            (Some(kind), Some(number)) => Self::Register { kind, number },
            _ => Self::Foreign,
        }
    }
}

/// Reads a record's name: 20 digits, a `u64`.
fn parse_padded(name: &str) -> Option<u64> {
    let digits = name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| name.parse().ok()).flatten()
}

/// The key of a vnode's state.
#[must_use]
pub fn partial(epoch: Epoch, vnode: Vnode) -> String {
    format!("epoch={epoch}/vnode={vnode}/{PARTIAL}")
}

/// The key of an epoch's seal.
#[must_use]
pub fn commit(epoch: Epoch) -> String {
    format!("epoch={epoch}/{COMMIT}")
}

/// The folder of an epoch, without a trailing slash.
#[must_use]
pub fn epoch_folder(epoch: Epoch) -> String {
    format!("epoch={epoch}")
}

/// The folder of a register, without a trailing slash.
#[must_use]
pub fn register_folder(kind: RegisterKind) -> String {
    format!("{REGISTERS}/{}", kind.folder())
}

/// The key of one record of a register.
#[must_use]
pub fn register(kind: RegisterKind, number: u64) -> String {
    format!("{REGISTERS}/{}/{number:020}", kind.folder())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn epoch(number: u64) -> Epoch {
        Epoch::new(number)
    }

    #[test]
    fn every_key_of_the_layout_is_read_back_from_its_own_text() {
        let vnode = Vnode::new(u32::MAX);
        for number in [0, 7, 10, u64::MAX] {
            let epoch = epoch(number);
            assert_eq!(Key::parse(&partial(epoch, vnode)), Key::Partial { epoch, vnode });
            assert_eq!(Key::parse(&commit(epoch)), Key::Commit { epoch });
            for kind in RegisterKind::ALL {
                assert_eq!(Key::parse(&register(kind, number)), Key::Register { kind, number });
            }
        }
    }

    #[test]
    fn the_layout_is_what_pipelines_write_today() {
        assert_eq!(partial(epoch(5), Vnode::new(0)), "epoch=5/vnode=0/partial.bin");
        assert_eq!(commit(epoch(5)), "epoch=5/_COMMIT");
        assert_eq!(register(RegisterKind::Fence, 7), "_epochwarden/fence/00000000000000000007");
    }

    #[test]
    fn what_only_resembles_the_layout_is_foreign() {
        for key in [
            "epoch=007/_COMMIT",
            "epoch=+7/_COMMIT",
            "epoch=/_COMMIT",
            "epoch=18446744073709551616/_COMMIT",
            "Epoch=7/_COMMIT",
            "epochs/7",
            "",
            "_COMMIT",
            "_epochwarden",
            "_epochwarden/fence",
            "_epochwarden/fence/7",
            "_epochwarden/fence/00000000000000000007/x",
            "_epochwarden/fence/99999999999999999999",
            "_epochwarden/unknown/00000000000000000007",
            "state-v2",
        ] {
            assert_eq!(Key::parse(key), Key::Foreign, "{key}");
        }
    }

    #[test]
    fn everything_else_of_an_epoch_belongs_to_it() {
        for key in [
            "epoch=7/vnode=01/partial.bin",
            "epoch=7/vnode=1/other",
            "epoch=7/vnode=1",
            "epoch=7/a/b",
            "epoch=7/_COMMIT/x",
        ] {
            assert_eq!(Key::parse(key), Key::Extra { epoch: epoch(7) }, "{key}");
        }
        assert_eq!(Key::parse("epoch=7"), Key::FolderMarker { epoch: epoch(7) });
    }

    #[test]
    fn a_newer_layout_is_known_by_its_marks() {
        for key in ["state-v2/x", "state-v10/epoch=1/_COMMIT", "epoch=7/_SEAL"] {
            assert_eq!(Key::parse(key), Key::NewerLayout, "{key}");
        }
        assert_eq!(Key::parse("_epochwarden/probe/4b9c"), Key::Probe);
    }
}

//! The rules one by one: each where it just holds, and where it just does not.

mod versioned;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use md5::{Digest, Md5};

use super::*;
use crate::epoch::{Epoch, Version};
use crate::inventory::{EpochIndex, Inventory, InventoryBuilder, Seal};
use crate::key;
use crate::plan::{Plan, Rules, Subject};
use crate::register::RegisterKind;
use crate::retention::Retention;

const VNODES: u32 = 2;
const STALLED: i64 = 1800;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn epoch(number: u64) -> Epoch {
    Epoch::new(number)
}

fn etag(body: &[u8]) -> String {
    let md5 = u128::from_be_bytes(Md5::digest(body).into());
    format!("\"{md5:032x}\"")
}

struct Object {
    key: String,
    size: u64,
    modified: i64,
    etag: Option<String>,
}

/// A root as a store would show it, and what the audit of it is given beside the listing.
struct World {
    objects: Vec<Object>,
    bodies: BTreeMap<u64, Vec<u8>>,
    evidence: Evidence,
    retention: Retention,
    numbering: Numbering,
    now: i64,
}

impl World {
    /// Nothing but a holder `a`, recorded at 1.
    fn new() -> Self {
        let mut world = Self {
            objects: Vec::new(),
            bodies: BTreeMap::new(),
            evidence: Evidence::default(),
            retention: Retention::default(),
            numbering: Numbering::Plain,
            now: 1000,
        };
        world.fence(1, 1, Some("a"));
        world
    }

    fn key(&mut self, key: impl Into<String>, size: u64, modified: i64, etag: Option<String>) -> &mut Self {
        self.objects.push(Object { key: key.into(), size, modified, etag });
        self
    }

    fn partial(&mut self, number: u64, vnode: u32, modified: i64) -> &mut Self {
        self.key(key::partial(epoch(number), Vnode::new(vnode)), 10, modified, None)
    }

    fn seal(&mut self, number: u64, body: impl AsRef<[u8]>, modified: i64) -> &mut Self {
        let body = body.as_ref();
        self.bodies.insert(number, body.to_vec());
        self.key(key::commit(epoch(number)), body.len() as u64, modified, Some(etag(body)))
    }

    /// A sound epoch: all vnodes, then the seal.
    fn sound(&mut self, number: u64, modified: i64) -> &mut Self {
        self.partial(number, 0, modified).partial(number, 1, modified).seal(number, "a", modified)
    }

    fn floor(&mut self, floor: u64, modified: i64) -> &mut Self {
        self.evidence.floors.observe(epoch(floor), at(modified));
        self.key(key::register(RegisterKind::Floor, floor), 10, modified, None)
    }

    fn fence(&mut self, version: u64, modified: i64, holder: Option<&str>) -> &mut Self {
        let holder = holder.map(str::to_owned);
        self.evidence.fence.push(FenceEvidence { version: Version::new(version), modified: at(modified), holder });
        self
    }

    fn keep_last(&mut self, epochs: u32) -> &mut Self {
        self.retention.keep_last = Some(epochs);
        self
    }

    fn at(&mut self, now: i64) -> &mut Self {
        self.now = now;
        self
    }

    fn list(&self) -> Inventory {
        let mut builder = InventoryBuilder::new(VNODES).numbered(self.numbering);
        for Object { key, size, modified, etag } in &self.objects {
            builder.observe(key, *size, at(*modified), etag.as_deref());
        }
        builder.finish()
    }

    /// The audit of this root, of which `later` is what the second look meets.
    fn audit_then(&self, later: &Self) -> Audit {
        let (inventory, second) = (self.list(), later.list());
        let rules = Rules { vnodes: VNODES, retention: self.retention.clone(), min_age: Duration::ZERO };
        let plan = Plan::new(&inventory, &rules, &Subject { root: "memory:///".into(), policy_uid: String::new() });
        let mut draft = Draft::new(AuditContext {
            inventory: &inventory,
            plan: &plan,
            evidence: &self.evidence,
            now: at(self.now),
            stalled_after: Duration::from_secs(STALLED.unsigned_abs()),
        });
        while let Some(number) = draft.markers_to_read(1).first() {
            draft.marker(*number, self.bodies.get(&number.get()).map(Vec::as_slice));
        }
        let mut look = draft.second_look();
        while let Some(number) = look.to_confirm(1).first() {
            look.confirm(*number, second.get(*number), &later.evidence.floors);
        }
        look.finish()
    }

    fn audit(&self) -> Audit {
        self.audit_then(self)
    }
}

fn world(build: impl FnOnce(&mut World)) -> World {
    let mut world = World::new();
    build(&mut world);
    world
}

type Found = (FindingKind, Severity, Option<u64>, Option<u32>);

fn found(audit: &Audit) -> Vec<Found> {
    let found = |finding: &Finding| {
        (finding.kind, finding.severity, finding.epoch.map(ShownEpoch::get), finding.vnode.map(Vnode::get))
    };
    audit.findings.iter().map(found).collect()
}

/// Each case: what it is, the root, and the finding's epoch and vnode, if there is one.
type Case = (&'static str, World, Option<(Option<u64>, Option<u32>)>);

fn check(kind: FindingKind, severity: Severity, cases: Vec<Case>) {
    for (name, world, expected) in cases {
        let audit = world.audit();
        let expected: Vec<Found> = expected.into_iter().map(|(epoch, vnode)| (kind, severity, epoch, vnode)).collect();
        assert_eq!(found(&audit), expected, "{kind}, {name}: {:#?}", audit.findings);
        let verdict = match (expected.is_empty(), severity) {
            (true, _) | (false, Severity::Info) => Verdict::Clean,
            (false, Severity::Warning) => Verdict::Warning,
            (false, Severity::Critical) => Verdict::Critical,
        };
        assert_eq!(audit.verdict, verdict, "{kind}, {name}");
    }
}

#[test]
fn a_sealed_epoch_without_a_partial_is_critical_unless_a_floor_above_it_stood_before_the_seal() {
    let incomplete = |more: fn(&mut World) -> &mut World| {
        world(|world| {
            more(world.partial(5, 0, 100).seal(5, "a", 100).sound(9, 110));
        })
    };
    check(
        FindingKind::SealedIncomplete,
        Severity::Critical,
        vec![
            ("a vnode is missing", incomplete(|world| world), Some((Some(5), Some(1)))),
            ("no vnode is missing", incomplete(|world| world.partial(5, 1, 100)), None),
            (
                "it is not sealed",
                world(|world| {
                    world.partial(5, 0, 100).sound(9, 110);
                }),
                None,
            ),
            ("a floor above it stood before the seal", incomplete(|world| world.floor(6, 99)), None),
            (
                "the floor came in the second of the seal",
                incomplete(|world| world.floor(6, 100)),
                Some((Some(5), Some(1))),
            ),
            ("the floor came after the seal", incomplete(|world| world.floor(6, 101)), Some((Some(5), Some(1)))),
            ("the floor is the epoch itself", incomplete(|world| world.floor(5, 1)), Some((Some(5), Some(1)))),
            (
                "a stranger's vnode fills no gap",
                incomplete(|world| world.key("epoch=5/vnode=01/partial.bin", 1, 100, None)),
                Some((Some(5), Some(1))),
            ),
        ],
    );
}

#[test]
fn a_partial_more_than_two_seconds_newer_than_its_seal_is_critical() {
    let late = |by: i64| {
        world(|world| {
            world.partial(5, 0, 100).partial(5, 1, 100 + by).seal(5, "a", 100);
        })
    };
    check(
        FindingKind::LateWrite,
        Severity::Critical,
        vec![
            ("three seconds", late(3), Some((Some(5), Some(1)))),
            ("two seconds", late(2), None),
            ("before", late(-3), None),
            (
                "of an unsealed epoch",
                world(|world| {
                    world.sound(4, 100).partial(5, 0, 900);
                }),
                None,
            ),
            (
                "another object than a partial",
                world(|world| {
                    world.sound(5, 100).key("epoch=5/notes", 1, 900, None);
                }),
                None,
            ),
        ],
    );
}

#[test]
fn a_seal_that_names_nobody_is_critical() {
    let sealed = |body: &[u8]| {
        world(|world| {
            world.partial(5, 0, 100).partial(5, 1, 100).seal(5, body, 100).evidence.fence.clear();
        })
    };
    check(
        FindingKind::MalformedMarker,
        Severity::Critical,
        vec![
            ("empty", sealed(b""), Some((Some(5), None))),
            ("not UTF-8", sealed(b"pod-\xff"), Some((Some(5), None))),
            ("over 1 KiB", sealed(&[b'a'; 1025]), Some((Some(5), None))),
            ("1 KiB", sealed(&[b'a'; 1024]), None),
            ("a name", sealed("größe".as_bytes()), None),
        ],
    );
}

#[test]
fn a_marker_that_its_size_condemns_is_never_fetched() {
    for body in [vec![], vec![b'a'; 1025]] {
        let mut world = world(|world| {
            world.partial(5, 0, 100).partial(5, 1, 100).seal(5, &body, 100);
        });
        world.bodies.clear();
        let audit = world.audit();
        assert_eq!((audit.verdict, audit.coverage.markers_read), (Verdict::Critical, 0));
    }
}

#[test]
fn a_lower_epoch_sealed_after_the_newest_is_critical_once_that_is_older_than_stalled_after() {
    let lower = |sealed: i64, now: i64| {
        world(|world| {
            world.sound(3, sealed).sound(9, 100).at(now);
        })
    };
    let expected = Some((Some(3), None));
    check(
        FindingKind::EpochRegression,
        Severity::Critical,
        vec![
            ("the newest seal is stalledAfter old", lower(101, 100 + STALLED), expected),
            ("sealed in the same second", lower(100, 100 + STALLED), None),
            ("sealed before", lower(99, 100 + STALLED), None),
        ],
    );
    check(
        FindingKind::EpochRegression,
        Severity::Warning,
        vec![
            ("the newest seal is younger", lower(101, 99 + STALLED), expected),
            ("the wall clock is behind the store's", lower(101, 50), expected),
        ],
    );
}

#[test]
fn numbering_that_restarted_is_one_finding_that_counts_the_epochs() {
    let audit = world(|world| {
        world.sound(1, 101).sound(2, 103).sound(3, 102).sound(9, 100);
    })
    .audit();
    assert_eq!(found(&audit), [(FindingKind::EpochRegression, Severity::Warning, Some(2), None)]);
    assert_eq!(audit.counts, BTreeMap::from([(FindingKind::EpochRegression, 3)]));
}

#[test]
fn what_makes_prune_hold_is_an_epoch_regression() {
    let straggler = |now: i64| {
        world(|world| {
            world.sound(2, 90).partial(3, 0, 101).sound(8, 95).sound(9, 100).keep_last(1).at(now);
        })
    };
    let expected = Some((Some(3), None));
    check(FindingKind::EpochRegression, Severity::Critical, vec![("long ago", straggler(100 + STALLED), expected)]);
    check(FindingKind::EpochRegression, Severity::Warning, vec![("just now", straggler(120), expected)]);
    let kept = world(|world| {
        world.sound(2, 90).partial(3, 0, 101).sound(9, 100).at(100 + STALLED);
    });
    check(FindingKind::EpochRegression, Severity::Critical, vec![("nothing would be deleted", kept, None)]);
    let audit = straggler(120).audit();
    assert!(audit.findings[0].detail.contains("prune holds"), "{}", audit.findings[0].detail);
}

#[test]
fn a_committer_whom_no_fence_record_names_is_a_warning_where_the_records_cover_the_seal() {
    let stranger = |more: fn(&mut World) -> &mut World| {
        let mut world = World::new();
        more(world.sound(4, 90).partial(5, 0, 100).partial(5, 1, 100).seal(5, "b", 100));
        world
    };
    let expected = Some((Some(5), None));
    check(
        FindingKind::UnknownCommitter,
        Severity::Warning,
        vec![
            ("never recorded", stranger(|world| world), expected),
            ("recorded", stranger(|world| world.fence(2, 95, Some("b"))), None),
            ("recorded later", stranger(|world| world.fence(2, 200, Some("b"))), None),
            ("a record before the seal cannot be read", stranger(|world| world.fence(2, 99, None)), None),
            ("a record after the seal cannot be read", stranger(|world| world.fence(2, 100, None)), expected),
            (
                "the first record is not older than the seal",
                stranger(|world| {
                    world.evidence.fence[0].modified = at(100);
                    world
                }),
                None,
            ),
            (
                "the first record is older by a second",
                stranger(|world| {
                    world.evidence.fence[0].modified = at(99);
                    world
                }),
                expected,
            ),
            (
                "there are no records",
                stranger(|world| {
                    world.evidence.fence.clear();
                    world
                }),
                None,
            ),
        ],
    );
}

#[test]
fn a_vnode_beyond_the_last_is_a_warning() {
    check(
        FindingKind::VnodeOutOfRange,
        Severity::Warning,
        vec![
            (
                "vnodes",
                world(|world| {
                    world.sound(5, 100).partial(5, VNODES, 100);
                }),
                Some((Some(5), Some(VNODES))),
            ),
            (
                "the last",
                world(|world| {
                    world.sound(5, 100).partial(5, VNODES - 1, 100);
                }),
                None,
            ),
        ],
    );
}

#[test]
fn newer_epochs_without_a_seal_for_stalled_after_are_a_warning() {
    let waiting = |now: i64| {
        world(|world| {
            world.sound(5, 100).partial(7, 0, 110).partial(8, 0, 120).at(now);
        })
    };
    check(
        FindingKind::StalledSealing,
        Severity::Warning,
        vec![
            ("stalledAfter ago", waiting(100 + STALLED), Some((Some(7), None))),
            ("a second less", waiting(99 + STALLED), None),
            ("the wall clock is behind the store's", waiting(50), None),
            (
                "nothing newer",
                world(|world| {
                    world.sound(5, 100).at(100_000);
                }),
                None,
            ),
            (
                "only lower ones",
                world(|world| {
                    world.partial(4, 0, 90).sound(5, 100).at(100_000);
                }),
                None,
            ),
            (
                "never sealed",
                world(|world| {
                    world.partial(7, 0, 110).partial(8, 0, 500).at(110 + STALLED);
                }),
                Some((Some(7), None)),
            ),
            (
                "never sealed, a second less",
                world(|world| {
                    world.partial(7, 0, 110).at(109 + STALLED);
                }),
                None,
            ),
        ],
    );
}

#[test]
fn an_index_alone_tells_stalled_sealing_as_an_audit_does() {
    let stalled_after = Duration::from_secs(STALLED.unsigned_abs());
    for world in [
        world(|world| {
            world.sound(5, 100).partial(7, 0, 110).partial(8, 0, 120).at(100 + STALLED);
        }),
        world(|world| {
            world.sound(5, 100).partial(7, 0, 110).at(99 + STALLED);
        }),
        world(|world| {
            world.partial(7, 0, 110).partial(8, 0, 500).at(110 + STALLED);
        }),
    ] {
        let mut index = EpochIndex::default();
        for Object { key, size, modified, etag } in &world.objects {
            index.observe(key, *size, at(*modified), etag.as_deref());
        }
        if index.never_sealed().is_some() {
            index.begun_at(at(110));
        }
        let found = stalled_sealing(&index.sealing(), Numbering::Plain, at(world.now), stalled_after);
        let audited = world.audit().findings.into_iter().find(|finding| finding.kind == FindingKind::StalledSealing);
        assert_eq!(found, audited, "at {}", world.now);
    }
}

#[test]
fn the_same_stall_is_told_in_the_same_words_however_long_it_lasts() {
    let told = |now| {
        let world = world(|world| {
            world.sound(5, 100).partial(7, 0, 110).at(now);
        });
        world.audit().findings.into_iter().next().map(|finding| finding.detail)
    };
    assert!(
        told(100 + STALLED).is_some_and(|detail| detail.contains("since 5 at 1970-01-01T00:01:40Z, more than 30m ago"))
    );
    assert_eq!(told(100 + STALLED), told(100_000));
}

#[test]
fn a_committer_is_known_by_the_etag_of_its_seal() {
    let seal = |etag: Option<String>, size| Seal { modified: at(1), etag: etag.map(Into::into), size };
    let of = |seal: &Seal| committer_of(seal, ["pod-1", "pod-2"]).map(str::to_owned);
    assert_eq!(of(&seal(Some(etag(b"pod-2")), 5)).as_deref(), Some("pod-2"));
    assert_eq!(of(&seal(Some(etag(b"pod-3")), 5)), None);
    assert_eq!(of(&seal(Some(etag(b"pod-2")), 6)), None, "another length is another body");
    assert_eq!(of(&seal(Some("\"17-5c\"".into()), 5)), None, "not every ETag is an MD5");
    assert_eq!(of(&seal(None, 5)), None);
}

#[test]
fn an_unsealed_epoch_below_the_floor_is_a_leak_when_no_rule_keeps_it() {
    let below = |more: fn(&mut World) -> &mut World| {
        let mut world = World::new();
        more(world.partial(5, 0, 50).sound(6, 60).sound(9, 100).keep_last(1));
        world
    };
    check(
        FindingKind::Leak,
        Severity::Warning,
        vec![
            ("below the floor", below(|world| world.floor(6, 70)), Some((Some(5), None))),
            ("the floor itself", below(|world| world.floor(5, 70)), None),
            ("no floor", below(|world| world), None),
            ("below all that is kept", below(|world| world.floor(6, 70).keep_last(2)), Some((Some(5), None))),
            ("above the lowest that is kept", below(|world| world.sound(4, 40).floor(6, 70).keep_last(3)), None),
            (
                "pinned",
                below(|world| {
                    world.retention.pinned.insert(epoch(5));
                    world.floor(6, 70)
                }),
                None,
            ),
            (
                "everything is kept",
                below(|world| {
                    world.retention.keep_last = None;
                    world.floor(6, 70)
                }),
                None,
            ),
            (
                "sealed",
                world(|world| {
                    world.sound(6, 60).sound(9, 100).keep_last(1).floor(8, 70);
                }),
                None,
            ),
        ],
    );
}

#[test]
fn a_key_that_cannot_be_deleted_by_name_is_a_warning() {
    check(
        FindingKind::UnaddressableKey,
        Severity::Warning,
        vec![
            (
                "a folder marker",
                world(|world| {
                    world.sound(5, 100).key("epoch=5", 0, 100, None);
                }),
                Some((Some(5), None)),
            ),
            (
                "an application's object",
                world(|world| {
                    world.sound(5, 100).key("epoch=5/notes", 0, 100, None);
                }),
                None,
            ),
        ],
    );
}

#[test]
fn a_record_that_does_not_parse_is_a_warning_that_names_it() {
    let broken = world(|world| {
        world.sound(5, 100).evidence.unreadable.push((RegisterKind::Floor, 7));
    });
    let detail = broken.audit().findings[0].detail.clone();
    assert!(detail.contains("_epochwarden/floor/00000000000000000007"), "{detail}");
    check(
        FindingKind::UnreadableRegister,
        Severity::Warning,
        vec![
            ("broken", broken, Some((None, None))),
            (
                "sound",
                world(|world| {
                    world.sound(5, 100).floor(1, 90);
                }),
                None,
            ),
        ],
    );
}

#[test]
fn foreign_keys_are_one_info_with_their_number() {
    let foreign = world(|world| {
        world.sound(5, 100).key("epoch=007/_COMMIT", 1, 100, None).key("README", 1, 100, None);
    });
    let audit = foreign.audit();
    assert_eq!(audit.counts, BTreeMap::from([(FindingKind::ForeignKey, 2)]));
    assert!(
        audit.findings[0]
            .detail
            .starts_with(r#"2 keys outside the layout are left alone: "README", "epoch=007/_COMMIT";"#),
        "{audit:?}"
    );
    check(FindingKind::ForeignKey, Severity::Info, vec![("two", foreign, Some((None, None)))]);
}

#[test]
fn gaps_and_changing_leaders_are_normal() {
    let audit = world(|world| {
        world
            .fence(2, 150, Some("pod-2"))
            .sound(3, 100)
            .partial(1000, 0, 200)
            .partial(1000, 1, 200)
            .seal(1000, "pod-2", 200);
    })
    .audit();
    assert_eq!((audit.verdict, audit.findings.len(), audit.coverage.markers_read), (Verdict::Clean, 0, 0));
    assert_eq!(audit.latest_committer.as_deref(), Some("pod-2"));
}

#[test]
fn a_known_committer_costs_no_request_and_an_unknown_one_costs_one_for_all_its_seals() {
    let many = world(|world| {
        for number in 0..50 {
            world.sound(number, 100);
        }
        for number in 50..80 {
            world.partial(number, 0, 100).partial(number, 1, 100).seal(number, "b", 100);
        }
    });
    let audit = many.audit();
    assert_eq!(audit.coverage.markers_read, 1);
    assert_eq!(audit.counts, BTreeMap::from([(FindingKind::UnknownCommitter, 30)]));
}

#[test]
fn a_seal_whose_etag_is_no_md5_of_its_body_is_read_itself() {
    for etag in [
        None,
        Some("\"0x8DC\""),
        Some("\"0cc175b9c0f1b6a831c399e269772661-1\""),
        Some("\"ffffffffffffffffffffffffffffffff\""),
    ] {
        let audit = world(|world| {
            for (number, body) in [(5, "a"), (6, "b")] {
                world.partial(number, 0, 100).partial(number, 1, 100).seal(number, body, 100);
                world.objects.last_mut().unwrap().etag = etag.map(str::to_owned);
            }
        })
        .audit();
        assert_eq!(audit.coverage.markers_read, 2, "{etag:?}");
        assert_eq!(found(&audit), [(FindingKind::UnknownCommitter, Severity::Warning, Some(6), None)], "{etag:?}");
    }
}

#[test]
fn the_same_etag_with_another_size_is_another_seal() {
    let audit = world(|world| {
        world.partial(5, 0, 100).partial(5, 1, 100).seal(5, "a", 100);
        world.objects.last_mut().unwrap().size = 2;
    })
    .audit();
    assert_eq!(audit.coverage.markers_read, 1);
}

#[test]
fn a_seal_that_is_gone_when_it_is_fetched_is_passed_over() {
    let mut gone = world(|world| {
        world.sound(4, 90).partial(5, 0, 100).partial(5, 1, 100).seal(5, "b", 100);
    });
    gone.bodies.remove(&5);
    let audit = gone.audit();
    assert_eq!((audit.verdict, audit.coverage.markers_read, audit.latest_committer), (Verdict::Clean, 0, None));
}

#[test]
fn what_no_longer_holds_at_the_second_look_is_dropped() {
    let incomplete = || {
        world(|world| {
            world.partial(5, 0, 100).seal(5, "a", 100).sound(9, 110);
        })
    };
    let unreadable = || {
        world(|world| {
            world.partial(5, 0, 100).partial(5, 1, 100).seal(5, b"\xff", 100);
        })
    };
    let regressed = || {
        world(|world| {
            world.sound(3, 101).sound(9, 100).at(100 + STALLED);
        })
    };
    let cases = [
        (
            "pruned",
            incomplete(),
            world(|world| {
                world.sound(9, 110);
            }),
        ),
        (
            "its seal is gone",
            incomplete(),
            world(|world| {
                world.partial(5, 0, 100);
            }),
        ),
        (
            "the partial was listed late",
            incomplete(),
            world(|world| {
                world.sound(5, 100);
            }),
        ),
        (
            "a floor stood before the seal",
            incomplete(),
            world(|world| {
                world.partial(5, 0, 100).seal(5, "a", 100).floor(6, 99);
            }),
        ),
        (
            "another seal",
            unreadable(),
            world(|world| {
                world.sound(5, 130);
            }),
        ),
        (
            "another seal, as long as the first",
            unreadable(),
            world(|world| {
                world.partial(5, 0, 100).partial(5, 1, 100).seal(5, b"\xfe", 100);
            }),
        ),
        (
            "the straggler is gone",
            world(|world| {
                world.sound(3, 90).key("epoch=3/notes", 1, 101, None).sound(9, 100).keep_last(1).at(100 + STALLED);
            }),
            world(|world| {
                world.sound(3, 90).sound(9, 100);
            }),
        ),
        (
            "the regressed epoch is gone",
            regressed(),
            world(|world| {
                world.sound(9, 100);
            }),
        ),
    ];
    for (name, first, later) in cases {
        assert_eq!(first.audit().verdict, Verdict::Critical, "{name}: without the second look");
        let audit = first.audit_then(&later);
        assert_eq!((audit.verdict, found(&audit)), (Verdict::Clean, vec![]), "{name}");
        assert_eq!(audit.coverage.looked_again, 1, "{name}");
    }
}

#[test]
fn at_most_twenty_are_listed_and_all_are_counted() {
    let warned = world(|world| {
        for number in 0..30 {
            world.sound(number, 100).partial(number, 7, 100);
        }
    })
    .audit();
    assert_eq!((warned.findings.len(), warned.truncated), (MAX_FINDINGS, true));
    assert_eq!(warned.counts, BTreeMap::from([(FindingKind::VnodeOutOfRange, 30)]));

    let mut exactly = World::new();
    for number in 0..20 {
        exactly.sound(number, 100).partial(number, 7, 100);
    }
    let audit = exactly.audit();
    assert_eq!((audit.findings.len(), audit.truncated), (MAX_FINDINGS, false));
}

#[test]
fn the_second_look_ends_when_the_list_is_full_and_says_what_it_left_out() {
    let audit = world(|world| {
        world.sound(1000, 50);
        for number in 0..30 {
            world.partial(number, 0, 40).seal(number, "a", 40);
        }
    })
    .audit();
    let listed: Vec<_> = found(&audit);
    let expected: Vec<Found> = (10..30)
        .rev()
        .map(|number| (FindingKind::SealedIncomplete, Severity::Critical, Some(number), Some(1)))
        .collect();
    assert_eq!(listed, expected);
    assert!(audit.truncated);
    assert_eq!((audit.coverage.looked_again, audit.coverage.unconfirmed), (20, 10));
    assert_eq!(audit.counts, BTreeMap::from([(FindingKind::SealedIncomplete, 20)]));
    assert_eq!(audit.coverage.to_string(), "31 epochs, 63 objects, 0 markers read; 10 more epochs looked critical");
}

#[test]
fn the_order_of_the_listing_makes_no_difference() {
    let mut world = world(|world| {
        world.sound(2, 90).partial(3, 0, 101).sound(8, 95).sound(100, 99).keep_last(1).at(5000).floor(4, 96);
        world.partial(110, 0, 102).key("README", 1, 1, None).key("epoch=2", 0, 1, None);
        for number in 40..70 {
            world.partial(number, 0, 98).partial(number, 5, 98).seal(number, format!("pod-{number}"), 98);
        }
    });
    let expected = world.audit();
    let kinds: Vec<_> = expected.counts.keys().copied().collect();
    assert!(kinds.len() >= 6, "{kinds:?}");
    let mut seed = 7_usize;
    for _ in 0..50 {
        for last in (1..world.objects.len()).rev() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            world.objects.swap(last, (seed >> 33) % (last + 1));
        }
        world.evidence.fence.reverse();
        assert_eq!(world.audit(), expected);
    }
}

#[test]
fn critical_findings_displace_warnings() {
    let audit = world(|world| {
        for number in 0..25 {
            world.sound(number, 100).partial(number, 7, 100);
        }
        world.partial(30, 0, 40).seal(30, "a", 130);
    })
    .audit();
    assert_eq!((audit.verdict, audit.findings.len(), audit.truncated), (Verdict::Critical, MAX_FINDINGS, true));
    assert_eq!(audit.findings[0].kind, FindingKind::SealedIncomplete);
    assert_eq!(audit.counts[&FindingKind::VnodeOutOfRange], 25);
}

#[test]
fn a_restarted_numbering_is_listed_before_epochs_that_hide_it() {
    let audit = world(|world| {
        world.sound(3, 101).sound(9, 100).at(100 + STALLED);
        for number in 4..9 {
            world.partial(number, 0, 90).seal(number, "a", 90);
        }
    })
    .audit();
    let epochs: Vec<_> = found(&audit).into_iter().map(|(kind, _, epoch, _)| (kind, epoch.unwrap())).collect();
    let incomplete = |number| (FindingKind::SealedIncomplete, number);
    let expected =
        [(FindingKind::EpochRegression, 3), incomplete(8), incomplete(7), incomplete(6), incomplete(5), incomplete(4)];
    assert_eq!(epochs, expected);
}

#[test]
fn the_coverage_is_a_sentence() {
    let coverage = Coverage { epochs: 1000, objects: 1_024_000, markers_read: 3, ..Coverage::default() };
    assert_eq!(coverage.to_string(), "1000 epochs, 1,024,000 objects, 3 markers read");
    let coverage = Coverage { epochs: 1, objects: 12_345, markers_read: 1, ..Coverage::default() };
    assert_eq!(coverage.to_string(), "1 epoch, 12,345 objects, 1 marker read");
}

#[test]
fn the_report_is_camel_case_json_with_epochs_as_strings() {
    let audit = world(|world| {
        world.partial(5, 0, 100).seal(5, "a", 100);
    })
    .audit();
    let json = serde_json::to_value(&audit).unwrap();
    assert_eq!(json["verdict"], "Critical");
    assert_eq!(json["counts"]["SealedIncomplete"], 1);
    assert_eq!(json["findings"][0]["kind"], "SealedIncomplete");
    assert_eq!(json["findings"][0]["severity"], "critical");
    assert_eq!(json["findings"][0]["epoch"], "5");
    assert_eq!(json["findings"][0]["vnode"], 1);
    assert_eq!(json["coverage"]["markersRead"], 0);
    assert_eq!(json["latestCommitter"], "a");
}

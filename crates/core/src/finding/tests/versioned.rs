//! Epochs that are numbered by version: what they testify by their number alone, and how they are shown.

use super::*;

/// `v5/0` and the first epoch of the next version.
const V5: u64 = 5_497_558_138_880;
const V6: u64 = 6_597_069_766_656;

fn versioned(build: impl FnOnce(&mut World)) -> World {
    world(|world| {
        world.numbering = Numbering::Versioned;
        build(world);
    })
}

#[test]
fn a_seal_of_a_version_that_the_fence_had_passed_is_contested() {
    for (case, epoch, sealed, contested) in [
        ("before the next version", V5 + 12, 99, false),
        ("in its very second, where the order is unknown", V5 + 12, 100, false),
        ("right after it", V5 + 12, 101, true),
        ("of the version that stands", V6, 150, false),
        ("of a version to come", V6 + (V6 - V5), 150, false),
        ("of no version", 12, 150, false),
    ] {
        let build = |world: &mut World| {
            world.fence(5, 50, Some("a")).fence(6, 100, Some("b")).fence(7, 200, Some("c")).sound(epoch, sealed);
        };
        let audit = versioned(build).audit();
        let expected: &[Found] =
            if contested { &[(FindingKind::ContestedSeal, Severity::Warning, Some(epoch), None)] } else { &[] };
        assert_eq!(found(&audit), expected, "{case}");
        assert_eq!(audit.verdict, if contested { Verdict::Warning } else { Verdict::Clean }, "{case}");
        // A plain number says nothing about who may write it.
        assert_eq!(found(&world(build).audit()), [], "{case}");
    }
}

#[test]
fn a_contested_seal_names_the_first_version_that_had_passed_it() {
    let audit = versioned(|world| {
        world.fence(5, 50, Some("a")).fence(7, 300, Some("c")).fence(6, 100, Some("b")).sound(V5 + 12, 400);
    })
    .audit();
    let detail = &audit.findings[0].detail;
    for words in ["epoch v5/12 of version 5", "1970-01-01T00:06:40Z", "at 6 since 1970-01-01T00:01:40Z"] {
        assert!(detail.contains(words), "{detail}");
    }
}

#[test]
fn every_finding_names_its_epoch_by_version_and_sequence() {
    let mut root = versioned(|world| {
        // Damaged in every way that an epoch can be.
        world.fence(5, 1, Some("a"));
        world.partial(V5 + 1, 0, 10).seal(V5 + 1, "a", 10);
        world.sound(V5 + 2, 20).partial(V5 + 2, 0, 30);
        world.sound(V5 + 3, 40).partial(V5 + 3, 9, 40);
        world.partial(V5 + 4, 0, 50).partial(V5 + 4, 1, 50).seal(V5 + 4, "stranger", 50);
        world.sound(V5 + 5, 60).key(format!("epoch={}", V5 + 5), 0, 60, None);
        world.partial(V5 + 6, 0, 70).floor(V5 + 8, 80);
        world.sound(V5 + 9, 90).partial(V6, 0, 100);
        world.sound(V5 + 7, 95);
    });
    root.keep_last(1).at(100_000);
    let audit = root.audit();
    let kinds: Vec<_> = audit.findings.iter().map(|finding| finding.kind).collect();
    for kind in [
        FindingKind::SealedIncomplete,
        FindingKind::LateWrite,
        FindingKind::EpochRegression,
        FindingKind::UnknownCommitter,
        FindingKind::VnodeOutOfRange,
        FindingKind::StalledSealing,
        FindingKind::Leak,
        FindingKind::UnaddressableKey,
    ] {
        assert!(kinds.contains(&kind), "{kind}: {kinds:?}");
    }
    for finding in &audit.findings {
        let shown = finding.epoch.unwrap().to_string();
        assert!(shown.starts_with('v'), "{finding}");
        // What is left of the whole numbers stands in keys, which are what a person would look for.
        let words = finding.detail.replace("epoch=54975", "");
        assert!(!words.contains("54975") && !words.contains("65970"), "{finding}");
    }
}

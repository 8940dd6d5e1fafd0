//! Named points at which a test can end the process, as if it had been killed right there.
//!
//! For tests only: a build without `debug_assertions` has none of this, and [`point`] does nothing there. Elsewhere a process whose
//! environment names a point in `EPOCHWARDEN_CRASH_AT` aborts when it gets there: `name`, or `name:N` for the N-th time. What a name means
//! is told at [`POINTS`] and [`PIPELINE_POINTS`]. It is read once, at the first point that the process comes to. `EPOCHWARDEN_PANIC_AT` names a point in the same
//! way at which the task panics instead.

/// The environment's variable that names the point.
pub const VARIABLE: &str = "EPOCHWARDEN_CRASH_AT";

/// The environment's variable that names a point at which the task panics.
pub const PANIC_VARIABLE: &str = "EPOCHWARDEN_PANIC_AT";

/// The points of what the operator and the command line run, in the order in which their run comes to them. Each is right *after* what its
/// name says, but for those with `before` and `asked` in it, which are right before the next write (or the next look).
///
/// - prune: `prune-listed` (the plan stands), `prune-claimed` (the root is the policy's), `prune-before-floor`, `prune-floor-published`,
///   `prune-batch-asked` (the next batch may go), `prune-seals-deleted` and `prune-batch-deleted` (of a batch), `prune-done` (after the
///   last batch);
/// - audit: `audit-listed`, `audit-before-second-look`, `audit-done`;
/// - fence: `fence-before-create`, `fence-created`, `fence-trimmed`;
/// - owner: `owner-created`.
pub const POINTS: &[&str] = &[
    "prune-listed",
    "prune-claimed",
    "prune-before-floor",
    "prune-floor-published",
    "prune-batch-asked",
    "prune-seals-deleted",
    "prune-batch-deleted",
    "prune-done",
    "audit-listed",
    "audit-before-second-look",
    "audit-done",
    "fence-before-create",
    "fence-created",
    "fence-trimmed",
    "owner-created",
];

/// The points that only a pipeline comes to, which also passes those of the fence; named and ordered as [`POINTS`].
///
/// - a restore: `restore-guarded`, `restore-seal-seen` (of an epoch by its number), `restore-listed`, `restore-partial-read` (each),
///   `restore-before-second-guard`, `restore-guarded-again`;
/// - a write: `partial-before-put`, `partial-put`;
/// - a commit: `commit-guarded`, `commit-seal-looked-for` (there is none), `commit-listed`, `commit-before-create`, `commit-created` (whatever
///   the answer says), `commit-before-second-guard`, `commit-done` (and the caller does not know it yet);
/// - `prune_before`: `pipeline-prune-listed`, `pipeline-prune-before-floor`, `pipeline-prune-floor-raised`, of each epoch
///   `pipeline-prune-epoch-listed`, `pipeline-prune-seal-deleted` and `pipeline-prune-epoch-deleted`, and `pipeline-prune-epochs-deleted`.
pub const PIPELINE_POINTS: &[&str] = &[
    "restore-guarded",
    "restore-seal-seen",
    "restore-listed",
    "restore-partial-read",
    "restore-before-second-guard",
    "restore-guarded-again",
    "partial-before-put",
    "partial-put",
    "commit-guarded",
    "commit-seal-looked-for",
    "commit-listed",
    "commit-before-create",
    "commit-created",
    "commit-before-second-guard",
    "commit-done",
    "pipeline-prune-listed",
    "pipeline-prune-before-floor",
    "pipeline-prune-floor-raised",
    "pipeline-prune-epoch-listed",
    "pipeline-prune-seal-deleted",
    "pipeline-prune-epoch-deleted",
    "pipeline-prune-epochs-deleted",
];

/// Ends the process when this is the point that its environment names.
///
/// # Panics
///
/// When this is the point at which the environment wants a panic, and for a name that is in neither list: those are what is tested.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    assert!(POINTS.contains(&name) || PIPELINE_POINTS.contains(&name), "the point {name} is in no list");
    #[cfg(test)]
    passed::push(name);
    if crash_at().is_some_and(|crash| crash.reaches(name)) {
        std::process::abort();
    }
    assert!(!panic_at().is_some_and(|crash| crash.reaches(name)), "{PANIC_VARIABLE} names the point {name}");
}

/// Does nothing: points are for tests.
#[cfg(not(debug_assertions))]
#[inline]
pub const fn point(_: &str) {}

#[cfg(debug_assertions)]
use armed::{crash_at, panic_at};

#[cfg(debug_assertions)]
mod armed {
    use std::num::NonZeroU64;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{PANIC_VARIABLE, VARIABLE};

    /// Where a process is to end.
    #[derive(Debug)]
    pub(super) struct CrashAt {
        name: String,
        /// How often it is passed until then, that time included.
        left: AtomicU64,
    }

    impl CrashAt {
        /// `name` or `name:N`; anything else names no point.
        pub(super) fn parse(text: &str) -> Option<Self> {
            let (name, times) = match text.split_once(':') {
                None => (text, 1),
                Some((name, times)) => (name, times.parse::<NonZeroU64>().ok()?.get()),
            };
            (!name.is_empty()).then(|| Self { name: name.to_owned(), left: AtomicU64::new(times) })
        }

        /// Counts a pass; whether it is the one.
        pub(super) fn reaches(&self, name: &str) -> bool {
            self.name == name && self.left.fetch_sub(1, Ordering::Relaxed) == 1
        }
    }

    pub(super) fn crash_at() -> Option<&'static CrashAt> {
        static CRASH_AT: OnceLock<Option<CrashAt>> = OnceLock::new();
        CRASH_AT.get_or_init(|| CrashAt::parse(&std::env::var(VARIABLE).ok()?)).as_ref()
    }

    pub(super) fn panic_at() -> Option<&'static CrashAt> {
        static PANIC_AT: OnceLock<Option<CrashAt>> = OnceLock::new();
        PANIC_AT.get_or_init(|| CrashAt::parse(&std::env::var(PANIC_VARIABLE).ok()?)).as_ref()
    }
}

/// The points that the code of one test has passed: each test has its own thread.
#[cfg(test)]
#[cfg(debug_assertions)]
pub(crate) mod passed {
    use std::cell::RefCell;

    thread_local! {
        static PASSED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn push(name: &str) {
        PASSED.with_borrow_mut(|passed| passed.push(name.to_owned()));
    }

    /// All since the last call.
    pub(crate) fn take() -> Vec<String> {
        PASSED.take()
    }
}

#[cfg(test)]
#[cfg(debug_assertions)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::time::Duration;

    use epochwarden_core::Version;
    use epochwarden_core::plan::Rules;
    use epochwarden_core::register::{OwnerRecord, Reading, RegisterKind};
    use epochwarden_core::retention::Retention;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use tokio_util::sync::CancellationToken;

    use super::armed::CrashAt;
    use super::*;
    use crate::audit::{self, AuditRules};
    use crate::prune::{self, Always, Approval, Identity, PruneRules};
    use crate::{Clock, Registers, Root, SystemClock};

    #[test]
    fn the_environment_names_a_point_and_which_time_it_is_passed() {
        // Which of five passes of the point `a` ends the process.
        let cases = [
            ("a", Some(1)),
            ("a:1", Some(1)),
            ("a:4", Some(4)),
            ("a:6", None),
            ("b", None),
            ("a:0", None),
            ("a:x", None),
            ("a:", None),
            ("a:-1", None),
            (":1", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let crash = CrashAt::parse(text);
            let passes = |name: &str| crash.as_ref().is_some_and(|crash| crash.reaches(name));
            let mut reached = Vec::new();
            for time in 1..=5_u64 {
                assert!(!passes("c"), "other points do not count");
                if passes("a") {
                    reached.push(time);
                }
            }
            assert_eq!(reached, expected.into_iter().collect::<Vec<u64>>(), "{text:?}");
        }
    }

    /// A root with five epochs of one vnode, and no registers.
    async fn root() -> Root {
        let root = Root::from_store(Arc::new(InMemory::new()));
        for epoch in 1..=5 {
            for name in ["vnode=0/partial.bin", "_COMMIT"] {
                let path = root.path(&format!("epoch={epoch}/{name}")).unwrap();
                root.store().put(&path, "state".into()).await.unwrap();
            }
        }
        root
    }

    fn rules() -> Rules {
        let retention = Retention { keep_last: Some(1), ..Retention::default() };
        Rules { vnodes: 1, retention, min_age: Duration::ZERO }
    }

    /// The points of one run, in the order of [`POINTS`].
    fn points(run: &str) -> Vec<&'static str> {
        POINTS.iter().copied().filter(|name| name.starts_with(run)).collect()
    }

    #[tokio::test]
    async fn a_prune_passes_its_points_in_their_order_and_goes_on_when_none_is_named() {
        let root = root().await;
        let rules = PruneRules {
            plan: rules(),
            dry_run: false,
            max_objects: 6,
            max_keys_per_second: None,
            deadline: Duration::from_mins(1),
        };
        let policy = OwnerRecord {
            cluster: "c".into(),
            namespace: "n".into(),
            name: "orders".into(),
            uid: "u".into(),
            take_over: None,
        };
        let identity =
            Identity { policy: Some(policy), ignore_owner: false, publisher: "test".into(), seen: Reading::default() };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let cancel = CancellationToken::new();
        passed::take();
        let run = prune::run(&root, &rules, &identity, Approval::Automatic, &Always, &clock, &cancel, &|_| ());
        assert_eq!(run.await.unwrap().objects, 6);
        let mut expected = points("prune-");
        expected.insert(1, "owner-created");
        assert_eq!(passed::take(), expected);
    }

    #[tokio::test]
    async fn an_audit_passes_its_points_in_their_order() {
        let rules = AuditRules { plan: rules(), stalled_after: Duration::from_mins(30), deadline: None };
        let root = root().await;
        passed::take();
        audit::run(&root, &rules, &SystemClock, &CancellationToken::new(), &|_| ()).await.unwrap();
        assert_eq!(passed::take(), points("audit-"));
    }

    #[tokio::test]
    async fn a_publication_of_the_fence_passes_its_points_in_their_order() {
        let registers = Registers::new(root().await, "test");
        passed::take();
        registers.publish_fence(Version::new(7), "pod-a", None).await.unwrap();
        registers.trim(RegisterKind::Fence).await;
        assert_eq!(passed::take(), points("fence-"));
    }

    #[test]
    fn every_point_has_one_name_that_the_environment_can_say() {
        let all = [POINTS, PIPELINE_POINTS].concat();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert!(all.iter().all(|name| !name.contains(':')));
    }
}

//! What is broken, how, and which promise notices it.

/// One mutation of the shipped code.
pub(crate) struct Mutation {
    /// What the code does after it, or does not any more.
    pub(crate) name: &'static str,
    /// File, its text, and what stands there instead.
    pub(crate) edits: &'static [(&'static str, &'static str, &'static str)],
    /// What has to notice it.
    pub(crate) noticed_by: By,
}

/// What notices a mutation.
pub(crate) enum By {
    /// Some seed of the simulation.
    Seeds {
        /// The scenario whose seeds notice it; empty: all that hold.
        scenario: &'static str,
        /// The promises of which one is broken by it.
        promises: &'static [&'static str],
        /// How many seeds may be needed.
        seeds: u64,
    },
    /// A test of the conformance suite, by the end of its name: the schedule is one that seeds do not meet by chance.
    Conformance(&'static str),
}

const COMMIT: &str = "crates/store/src/backend/commit.rs";
const RESTORE: &str = "crates/store/src/backend/restore.rs";
const SCAN: &str = "crates/store/src/backend/scan.rs";
const PARTIAL: &str = "crates/store/src/backend/partial.rs";
const CREATE: &str = "crates/store/src/create.rs";
const PUBLISH: &str = "crates/store/src/registers/publish.rs";
const ASSIGN: &str = "crates/store/src/registers/assign.rs";
const PREPARE: &str = "crates/store/src/prune/prepare.rs";
const EXECUTE: &str = "crates/store/src/prune/execute.rs";
const BATCH: &str = "crates/store/src/prune/batch.rs";
const GUARD: &str = "crates/core/src/guard.rs";
const REGISTER: &str = "crates/core/src/register.rs";
const RETENTION: &str = "crates/core/src/retention.rs";
const DECIDE: &str = "crates/core/src/plan/decide.rs";

pub(crate) const MUTATIONS: &[Mutation] = &[
    Mutation {
        name: "no second guard read after the seal",
        edits: &[(
            COMMIT,
            "        if let Passed::Holds(_) = before {\n            self.guards.check(version, Some(epoch), As::Leader).await?;\n        }\n",
            "        let _ = before;\n",
        )],
        noticed_by: By::Seeds { scenario: "versioned", promises: &["Lineage"], seeds: 2_000 },
    },
    Mutation {
        name: "a fence above one's own version is let pass",
        edits: &[(
            GUARD,
            "    if reading.fence > version {\n",
            "    if reading.fence > version && version.is_off() {\n",
        )],
        noticed_by: By::Seeds { scenario: "versioned", promises: &["Lineage"], seeds: 2_000 },
    },
    Mutation {
        name: "the holder of one's own version is not looked at",
        edits: &[(
            GUARD,
            "Standing::Record(record) if !record.names(holder) =>",
            "Standing::Record(record) if record.holder.is_empty() =>",
        )],
        noticed_by: By::Seeds { scenario: "", promises: &["Lineage", "OwnSeal", "Unmixed"], seeds: 3_000 },
    },
    Mutation {
        name: "an epoch below the floor is sealed",
        edits: &[(
            GUARD,
            "Some(epoch) if epoch < reading.floor =>",
            "Some(epoch) if epoch < reading.floor && version.is_off() =>",
        )],
        noticed_by: By::Seeds { scenario: "plain", promises: &["AboveFloor"], seeds: 1_000 },
    },
    Mutation {
        name: "a seal is written without a look at the partials",
        edits: &[(COMMIT, "        if !missing.is_empty() {\n", "        if missing.len() > vnodes.len() {\n")],
        noticed_by: By::Seeds { scenario: "", promises: &["NothingLost"], seeds: 500 },
    },
    Mutation {
        name: "another's seal is taken for one's own",
        edits: &[(
            COMMIT,
            "            SealOwner::Ours => Ok(true),\n",
            "            SealOwner::Ours => Ok(true),\n            SealOwner::Another(_) if !self.instance.as_str().is_empty() => Ok(true),\n",
        )],
        noticed_by: By::Seeds { scenario: "plain", promises: &["OwnSeal"], seeds: 2_000 },
    },
    Mutation {
        name: "AlreadyExists is taken for success",
        edits: &[(
            CREATE,
            "            Err(error) if refused(&error) => return Err(error),\n",
            "            Err(Error::AlreadyExists { .. }) => return Ok(Created::Written),\n            Err(error) if refused(&error) => return Err(error),\n",
        )],
        noticed_by: By::Seeds { scenario: "", promises: &["OwnSeal", "FenceTold"], seeds: 1_000 },
    },
    Mutation {
        name: "a restore without its second read",
        edits: &[(
            RESTORE,
            "        let reading = self.guards.check(self.version, None, As::Reader).await?.reading();\n",
            "        let reading = epochwarden_core::register::Reading::default();\n",
        )],
        noticed_by: By::Seeds { scenario: "versioned", promises: &["Lineage"], seeds: 2_000 },
    },
    Mutation {
        name: "what the first guard read says is not heeded",
        edits: &[
            (
                COMMIT,
                "        let before = self.guards.check(version, Some(epoch), As::Leader).await?;\n",
                "        let before = self.guards.check(version, Some(epoch), As::Leader).await;\n",
            ),
            (
                COMMIT,
                "        if let Passed::Holds(_) = before {\n",
                "        if let Ok(Passed::Holds(_)) | Err(_) = before {\n",
            ),
        ],
        noticed_by: By::Seeds { scenario: "", promises: &["AboveFloor", "RegisterLost"], seeds: 2_000 },
    },
    Mutation {
        name: "an empty listing is believed without reading the floor a second time",
        edits: &[(
            RESTORE,
            "                    missed = self.guards.check(version, None, As::Reader).await?.reading().floor;\n",
            "                    missed = floor;\n",
        )],
        noticed_by: By::Conformance("an_empty_listing_beside_which_a_floor_rose_is_made_again::in_memory"),
    },
    Mutation {
        name: "a restore ends without a look at the floor",
        edits: &[(
            RESTORE,
            "            Target::Newest => reading.floor <= self.epoch,\n",
            "            Target::Newest => reading.floor <= self.epoch || self.vnode_capacity > 0,\n",
        )],
        noticed_by: By::Conformance("a_prune_behind_the_last_read_is_seen_at_the_end::in_memory"),
    },
    Mutation {
        name: "a restore by number ends without a look at whose seal stands",
        edits: &[(
            RESTORE,
            ".is_some_and(|now| now == *seal)",
            ".is_none_or(|now| now == *seal || self.vnode_capacity > 0)",
        )],
        noticed_by: By::Seeds { scenario: "", promises: &["WholeRestore"], seeds: 2_000 },
    },
    Mutation {
        name: "a state that was missing is forgotten at the end of a restore",
        edits: &[(
            RESTORE,
            "        if let Some((epoch, vnode)) = missing {\n",
            "        if let Some((epoch, vnode)) = missing.filter(|_| self.vnode_capacity == 0) {\n",
        )],
        noticed_by: By::Seeds { scenario: "", promises: &["WholeRestore"], seeds: 2_000 },
    },
    Mutation {
        name: "an epoch of another version's range is sealed",
        edits: &[(
            COMMIT,
            "        self.guards.check_epoch(epoch, version)?;\n",
            "        let _ = self.guards.check_epoch(epoch, version);\n",
        )],
        noticed_by: By::Seeds { scenario: "versioned", promises: &["OwnRange"], seeds: 2_000 },
    },
    Mutation {
        name: "what is listed where nothing is sealed is forgotten",
        edits: &[(
            SCAN,
            "        self.listed.saw(scan.highest);\n",
            "        self.listed.saw(scan.sealed.and(scan.highest));\n",
        )],
        noticed_by: By::Seeds { scenario: "exclusive", promises: &["Lineage", "Unmixed"], seeds: 1_500 },
    },
    Mutation {
        name: "a partial that is there is overwritten",
        edits: &[(
            PARTIAL,
            "        if !self.exclusive_partials {\n",
            "        if !self.exclusive_partials || vnode.get() < u32::MAX {\n",
        )],
        noticed_by: By::Seeds { scenario: "exclusive", promises: &["Unmixed"], seeds: 4_000 },
    },
    Mutation {
        name: "a fence that stands is done, whoever holds it",
        edits: &[(
            PUBLISH,
            "        Record::Readable(record) if record.is_of(holder, lease) => Ok(Published::AlreadyThere),\n",
            "        Record::Readable(_) if !holder.is_empty() || lease.is_some() => Ok(Published::AlreadyThere),\n",
        )],
        noticed_by: By::Seeds { scenario: "", promises: &["FenceTold"], seeds: 2_000 },
    },
    Mutation {
        name: "the Lease is read before the fence is listed",
        edits: &[(
            ASSIGN,
            "                FenceDecision::Publish(term) => term,\n",
            "                FenceDecision::Publish(term) => {\n                    let version = Version::new(self.read().await?.fence.get() + 1);\n                    Term { version, ..term }\n                }\n",
        )],
        noticed_by: By::Seeds { scenario: "", promises: &["TermsInOrder"], seeds: 3_000 },
    },
    Mutation {
        name: "an empty register is 0, whatever was seen",
        edits: &[(REGISTER, "            if found < seen {\n", "            if found < seen && found > 0 {\n")],
        noticed_by: By::Seeds { scenario: "", promises: &["RegisterLost"], seeds: 2_000 },
    },
    Mutation {
        name: "the highest records are trimmed",
        edits: &[(REGISTER, "    numbers.sort_unstable_by(|a, b| b.cmp(a));\n", "    numbers.sort_unstable();\n")],
        noticed_by: By::Seeds { scenario: "", promises: &["Monotone"], seeds: 1_000 },
    },
    Mutation {
        name: "the floor is published after the deletes",
        edits: &[
            (
                PREPARE,
                "        let floor = self.publish_floor(&reading, before, digest).await?;\n        report.floor = Some(self.registers.root().numbering().show(floor));\n",
                "        let _ = (&reading, digest);\n        report.floor = Some(self.registers.root().numbering().show(before));\n",
            ),
            (PREPARE, "    async fn publish_floor(", "    pub(super) async fn publish_floor("),
            (
                EXECUTE,
                "        crash::point(\"prune-done\");\n",
                "        crash::point(\"prune-done\");\n        if let (Some(before), Ok(reading)) = (report.floor.map(|floor| floor.epoch()), self.registers.read().await) {\n            let _ = self.publish_floor(&reading, before, \"\").await;\n        }\n",
            ),
        ],
        noticed_by: By::Seeds { scenario: "", promises: &["FloorFirst"], seeds: 500 },
    },
    Mutation {
        name: "partials are deleted before their seals",
        edits: &[
            (
                BATCH,
                "        self.delete_keys(batch.iter().map(|deletion| commit(deletion.epoch())), &mut tally, report, total).await;\n",
                "",
            ),
            (
                BATCH,
                "batch.iter().filter(|deletion| tally.open.contains(&deletion.epoch())).collect();",
                "batch.iter().collect();",
            ),
            (
                BATCH,
                "        self.look_again(&open, &mut tally, report).await;\n",
                "        self.delete_keys(batch.iter().map(|deletion| commit(deletion.epoch())), &mut tally, report, total).await;\n        self.look_again(&open, &mut tally, report).await;\n",
            ),
        ],
        noticed_by: By::Seeds { scenario: "", promises: &["SealFirst"], seeds: 500 },
    },
    Mutation {
        name: "an epoch whose seal may still be there is deleted",
        edits: &[(
            BATCH,
            "batch.iter().filter(|deletion| tally.open.contains(&deletion.epoch())).collect();",
            "batch.iter().collect();",
        )],
        noticed_by: By::Seeds { scenario: "", promises: &["SealFirst"], seeds: 500 },
    },
    Mutation {
        name: "one epoch less than the rules say is kept",
        edits: &[(RETENTION, "newest_first.iter().take(count)", "newest_first.iter().take(count.saturating_sub(1))")],
        noticed_by: By::Seeds { scenario: "", promises: &["NothingKeptDeleted"], seeds: 500 },
    },
    Mutation {
        name: "the last of a window is not kept",
        edits: &[(RETENTION, "if windows.insert(", "if rule.every.is_zero() && windows.insert(")],
        noticed_by: By::Seeds { scenario: "", promises: &["NothingKeptDeleted"], seeds: 2_000 },
    },
    Mutation {
        name: "what a kept epoch builds on is not kept",
        edits: &[(DECIDE, "                    self.rules.retention.incremental_depth\n", "                    0\n")],
        noticed_by: By::Seeds { scenario: "", promises: &["NothingKeptDeleted"], seeds: 2_000 },
    },
    Mutation {
        name: "what is young is not kept",
        edits: &[(DECIDE, "let too_young = self.min_age() > 0 &&", "let too_young = self.min_age() < 0 &&")],
        noticed_by: By::Seeds { scenario: "", promises: &["NothingKeptDeleted"], seeds: 2_000 },
    },
];

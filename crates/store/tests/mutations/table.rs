//! What is broken, how, and which promise notices it.

/// One mutation of the shipped code.
pub(crate) struct Mutation {
    /// What the code does after it, or does not any more.
    pub(crate) name: &'static str,
    /// File, its text, and what stands there instead.
    pub(crate) edits: &'static [(&'static str, &'static str, &'static str)],
    /// The scenario whose seeds notice it; empty: all that hold.
    pub(crate) scenario: &'static str,
    /// The promises of which one is broken by it.
    pub(crate) promises: &'static [&'static str],
    /// How many seeds may be needed.
    pub(crate) seeds: u64,
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

pub(crate) const MUTATIONS: &[Mutation] = &[
    Mutation {
        name: "no second guard read after the seal",
        edits: &[(
            COMMIT,
            "        if let Passed::Holds(_) = before {\n            self.guards.check(version, Some(epoch), As::Leader).await?;\n        }\n",
            "        let _ = before;\n",
        )],
        scenario: "versioned",
        promises: &["Lineage"],
        seeds: 2_000,
    },
    Mutation {
        name: "a fence above one's own version is let pass",
        edits: &[(
            GUARD,
            "    if reading.fence > version {\n",
            "    if reading.fence > version && version.is_off() {\n",
        )],
        scenario: "versioned",
        promises: &["Lineage"],
        seeds: 2_000,
    },
    Mutation {
        name: "the holder of one's own version is not looked at",
        edits: &[(
            GUARD,
            "Standing::Record(record) if !record.names(holder) =>",
            "Standing::Record(record) if record.holder.is_empty() =>",
        )],
        scenario: "",
        promises: &["Lineage", "OwnSeal", "Unmixed"],
        seeds: 3_000,
    },
    Mutation {
        name: "an epoch below the floor is sealed",
        edits: &[(
            GUARD,
            "Some(epoch) if epoch < reading.floor =>",
            "Some(epoch) if epoch < reading.floor && version.is_off() =>",
        )],
        scenario: "plain",
        promises: &["AboveFloor"],
        seeds: 1_000,
    },
    Mutation {
        name: "a seal is written without a look at the partials",
        edits: &[(COMMIT, "        if !missing.is_empty() {\n", "        if missing.len() > vnodes.len() {\n")],
        scenario: "",
        promises: &["NothingLost"],
        seeds: 500,
    },
    Mutation {
        name: "another's seal is taken for one's own",
        edits: &[(
            COMMIT,
            "            SealOwner::Ours => Ok(true),\n",
            "            SealOwner::Ours => Ok(true),\n            SealOwner::Another(_) if !self.instance.as_str().is_empty() => Ok(true),\n",
        )],
        scenario: "plain",
        promises: &["OwnSeal"],
        seeds: 2_000,
    },
    Mutation {
        name: "AlreadyExists is taken for success",
        edits: &[(
            CREATE,
            "            Err(error) if refused(&error) => return Err(error),\n",
            "            Err(Error::AlreadyExists { .. }) => return Ok(Created::Written),\n            Err(error) if refused(&error) => return Err(error),\n",
        )],
        scenario: "",
        promises: &["OwnSeal", "FenceTold"],
        seeds: 1_000,
    },
    Mutation {
        name: "a restore without its second read",
        edits: &[(
            RESTORE,
            "        let reading = self.guards.check(self.version, None, As::Reader).await?.reading();\n",
            "        let reading = epochwarden_core::register::Reading::default();\n",
        )],
        scenario: "versioned",
        promises: &["Lineage"],
        seeds: 2_000,
    },
    Mutation {
        name: "what is listed where nothing is sealed is forgotten",
        edits: &[(
            SCAN,
            "        self.listed.saw(scan.highest);\n",
            "        self.listed.saw(scan.sealed.and(scan.highest));\n",
        )],
        scenario: "exclusive",
        promises: &["Lineage", "Unmixed"],
        seeds: 1_500,
    },
    Mutation {
        name: "a partial that is there is overwritten",
        edits: &[(
            PARTIAL,
            "        if !self.exclusive_partials {\n",
            "        if !self.exclusive_partials || vnode.get() < u32::MAX {\n",
        )],
        scenario: "exclusive",
        promises: &["Unmixed"],
        seeds: 4_000,
    },
    Mutation {
        name: "a fence that stands is done, whoever holds it",
        edits: &[(
            PUBLISH,
            "        Record::Readable(record) if record.is_of(holder, lease) => Ok(Published::AlreadyThere),\n",
            "        Record::Readable(_) if !holder.is_empty() || lease.is_some() => Ok(Published::AlreadyThere),\n",
        )],
        scenario: "",
        promises: &["FenceTold"],
        seeds: 2_000,
    },
    Mutation {
        name: "the Lease is read before the fence is listed",
        edits: &[(
            ASSIGN,
            "                FenceDecision::Publish(term) => term,\n",
            "                FenceDecision::Publish(term) => {\n                    let version = Version::new(self.read().await?.fence.get() + 1);\n                    Term { version, ..term }\n                }\n",
        )],
        scenario: "",
        promises: &["TermsInOrder"],
        seeds: 3_000,
    },
    Mutation {
        name: "an empty register is 0, whatever was seen",
        edits: &[(REGISTER, "            if found < seen {\n", "            if found < seen && found > 0 {\n")],
        scenario: "",
        promises: &["RegisterLost"],
        seeds: 2_000,
    },
    Mutation {
        name: "the highest records are trimmed",
        edits: &[(REGISTER, "    numbers.sort_unstable_by(|a, b| b.cmp(a));\n", "    numbers.sort_unstable();\n")],
        scenario: "",
        promises: &["Monotone"],
        seeds: 1_000,
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
        scenario: "",
        promises: &["FloorFirst"],
        seeds: 500,
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
        scenario: "",
        promises: &["SealFirst"],
        seeds: 500,
    },
    Mutation {
        name: "an epoch whose seal may still be there is deleted",
        edits: &[(
            BATCH,
            "batch.iter().filter(|deletion| tally.open.contains(&deletion.epoch())).collect();",
            "batch.iter().collect();",
        )],
        scenario: "",
        promises: &["SealFirst"],
        seeds: 500,
    },
    Mutation {
        name: "one epoch less than the rules say is kept",
        edits: &[(RETENTION, "newest_first.iter().take(count)", "newest_first.iter().take(count.saturating_sub(1))")],
        scenario: "",
        promises: &["NothingKeptDeleted"],
        seeds: 500,
    },
];

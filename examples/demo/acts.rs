//! The play, act by act. Each act makes something happen, waits until it can be observed, and only then says so.

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, ensure};
use epochwarden::api::StateEpochPolicyStatus;
use epochwarden::api::status::{FindingStatus, Phase, PlanRange, PlanStatus, PruneStatus};
use epochwarden_core::{Epoch, ShownEpoch, Version, Vnode, key};
use epochwarden_store::registers::Record;
use epochwarden_store::{Registers, list_epochs};
use object_store::{Error, ObjectStoreExt};
use tokio::time::interval;

use crate::cast::Pipeline;
use crate::checklist::{Checklist, Promise};
use crate::cluster::Kube;
use crate::narrator::Narrator;
use crate::policy::{self, Policy};
use crate::store::Store;

/// How long the operator may take for anything but a slot of a schedule.
const SOON: Duration = Duration::from_secs(30);

/// A slot comes every minute, and the run in it takes its time.
const A_SLOT: Duration = Duration::from_secs(90);

/// How often the audience hears something while it waits for a slot.
const MEANWHILE: Duration = Duration::from_secs(15);

/// The vnode that loses its state in the last act.
const VICTIM: Vnode = Vnode::new(2);

/// Everything from the operator's first words to the last look.
pub(crate) async fn all(
    narrator: &Narrator,
    kube: &Kube,
    store: &Store,
    policy: &Policy<'_>,
    folder: &Path,
    checklist: &mut Checklist,
) -> anyhow::Result<()> {
    let ready = |status: &StateEpochPolicyStatus| has_condition(status, "Ready", "True").then_some(());
    policy.wait("the policy becomes Ready", SOON, ready).await?;
    narrator.line("The operator runs, and the policy is Ready.");

    let stage = Stage { narrator, store, policy };
    narrator.act("Act 1. A leader");
    let mut a = Pipeline::start('a', kube, store, folder).await?;
    stage.first_leader(&mut a, checklist).await?;
    let mut b = Pipeline::start('b', kube, store, folder).await?;
    stage.pipeline_runs(&mut a, &mut b).await?;

    narrator.act("Act 2. The leader falls asleep");
    let unsealed = stage.fail_over(&mut a, &mut b, checklist).await?;

    narrator.act("Act 3. The old leader wakes up");
    stage.refusal(&mut a, unsealed, checklist).await?;

    narrator.act("Act 4. The scheduled prune");
    let plan = stage.scheduled_prune(checklist).await?;

    narrator.act("Act 5. Damage behind everyone's back");
    stage.damage(&plan, checklist).await?;

    narrator.act("How it stands: kubectl get sep -o wide");
    print!("{}", kube.kubectl(&["get", "sep", "--output", "wide"]).await?);
    narrator.act("The conditions");
    print!("{}", policy::conditions(&policy.status().await?));
    Ok(())
}

/// What the acts are played on.
struct Stage<'a> {
    narrator: &'a Narrator,
    store: &'a Store,
    policy: &'a Policy<'a>,
}

impl Stage<'_> {
    async fn first_leader(&self, a: &mut Pipeline, checklist: &mut Checklist) -> anyhow::Result<()> {
        let version = a.says_number("leading version ").await?;
        self.narrator
            .line(&format!("The pipeline process {} takes the Lease and leads with version {version}.", a.identity()));
        let lag = self.fence_stands(Version::new(version), a.identity()).await?;
        self.narrator
            .line(&format!("The operator writes that version into the bucket, {lag} after the Lease changed:"));
        self.narrator.quote(&format!("{}  holder {}", fence_key(Version::new(version)), a.identity()));
        checklist.observed(Promise::FenceFollowsLeader);
        a.says("fenced ").await?;
        Ok(())
    }

    async fn pipeline_runs(&self, a: &mut Pipeline, b: &mut Pipeline) -> anyhow::Result<()> {
        b.says(&format!("following {}", a.identity())).await?;
        self.narrator.line(&format!("A second process, {}, waits for its turn.", b.identity()));
        let first = a.says_number("sealed ").await?;
        let mut last = first;
        while last < first + 5 {
            last = a.says_number("sealed ").await?;
        }
        self.narrator
            .line(&format!("The leader seals about an epoch a second: it has sealed epochs {first} to {last}."));
        Ok(())
    }

    /// Returns the epoch that the old leader has written and not sealed.
    async fn fail_over(&self, a: &mut Pipeline, b: &mut Pipeline, checklist: &mut Checklist) -> anyhow::Result<Epoch> {
        a.pause()?;
        let unsealed = a.says_number("paused before sealing ").await?;
        self.narrator.line(&format!(
            "{} stands still in the middle of epoch {unsealed}: written, not yet sealed.",
            a.identity()
        ));
        let version = b.says_number("leading version ").await?;
        self.narrator.line(&format!("Its Lease runs out. {} takes it and leads with version {version}.", b.identity()));
        let lag = self.fence_stands(Version::new(version), b.identity()).await?;
        self.narrator.line(&format!("The fence rises to {version}, {lag} after the Lease changed:"));
        self.narrator.quote(&format!("{}  holder {}", fence_key(Version::new(version)), b.identity()));
        checklist.observed(Promise::FenceRises);
        let restored = b.says_number("restored ").await?;
        let sealed = b.says_number("sealed ").await?;
        self.narrator
            .line(&format!("It restores epoch {restored}, leaves {unsealed} alone, and seals epoch {sealed}."));
        ensure!(restored < unsealed && unsealed < sealed, "the new leader must not touch epoch {unsealed}");
        Ok(Epoch::new(unsealed))
    }

    async fn refusal(&self, a: &mut Pipeline, unsealed: Epoch, checklist: &mut Checklist) -> anyhow::Result<()> {
        a.resume()?;
        a.says("resumed ").await?;
        self.narrator.line(&format!(
            "{} goes on as if nothing had happened, and seals epoch {unsealed}. It says itself:",
            a.identity()
        ));
        let refused = a.says(&format!("refused {unsealed}: ")).await?;
        self.narrator.quote(&refused);
        ensure!(refused.contains("is stale"), "refused, but not because its version is stale: {refused}");
        let seal = self.store.root().path(&key::commit(unsealed))?;
        let looked = self.store.root().store().head(&seal).await;
        ensure!(matches!(looked, Err(Error::NotFound { .. })), "epoch {unsealed} should have no seal: {looked:?}");
        a.says("following ").await?;
        self.narrator.line(&format!(
            "There is no seal of epoch {unsealed} in the bucket. The old leader steps down, and follows."
        ));
        checklist.observed(Promise::DeposedLeaderRefused);
        Ok(())
    }

    /// Returns the plan that was executed.
    async fn scheduled_prune(&self, checklist: &mut Checklist) -> anyhow::Result<PlanStatus> {
        let before = self.policy.status().await?;
        ensure!(before.last_run_request.is_none(), "nobody has asked for a run, and yet one was recorded");
        let before = before.prune.unwrap_or_default();
        if let Some(next) = before.next_run_at {
            self.narrator.line(&format!("The next slot of \"* * * * *\" is {}.", next.strftime("%H:%M:%S UTC")));
        }
        let ran = |status: &StateEpochPolicyStatus| {
            let prune = status.prune.clone().filter(|prune| {
                prune.phase == Some(Phase::Succeeded)
                    && prune.finished_at != before.finished_at
                    && prune.epochs.is_some_and(|epochs| epochs.get() > 0)
            })?;
            Some((prune, status.plan.clone()?))
        };
        // Its first tick comes at once.
        let mut ticks = interval(MEANWHILE);
        let mut waiting = pin!(self.policy.wait("a scheduled prune that removes something", A_SLOT, ran));
        let (prune, plan) = loop {
            tokio::select! {
                ran = &mut waiting => break ran?,
                _ = ticks.tick() => {
                    let epochs = list_epochs(self.store.root()).await?;
                    self.narrator.line(&format!("  ... {} epochs are in the bucket.", epochs.len()));
                }
            }
        };
        self.tell_prune(&prune, &plan);
        self.check_prune(&plan).await?;
        checklist.observed(Promise::PruneBySchedule);
        Ok(plan)
    }

    fn tell_prune(&self, prune: &PruneStatus, plan: &PlanStatus) {
        let removed = prune.epochs.unwrap_or_default().get();
        let objects = prune.objects.unwrap_or_default().get();
        self.narrator.line(&format!(
            "The prune ran: {removed} epochs with {objects} objects are gone. The plan in the status says why:"
        ));
        self.narrator.quote(&format!("removed  {}", ranges(&plan.delete)));
        self.narrator.quote(&format!("kept     {}", ranges(&plan.keep)));
    }

    /// Compares what the plan says with what is in the bucket.
    async fn check_prune(&self, plan: &PlanStatus) -> anyhow::Result<()> {
        ensure!(!plan.truncated, "the plan is too long for this demo");
        let listed = list_epochs(self.store.root()).await?;
        for range in &plan.delete {
            let left = listed.iter().find(|epoch| (range.from.epoch()..=range.to.epoch()).contains(*epoch));
            ensure!(left.is_none(), "epoch {left:?} was to be removed, and is still there");
        }
        for epoch in plan.keep.iter().flat_map(|range| [range.from.epoch(), range.to.epoch()]) {
            ensure!(listed.contains(&epoch), "epoch {epoch} was to be kept, and is gone");
        }
        self.narrator
            .line("A look into the bucket confirms it: what was to be removed is gone, what was to be kept is there.");
        Ok(())
    }

    async fn damage(&self, plan: &PlanStatus, checklist: &mut Checklist) -> anyhow::Result<()> {
        let kept = plan.keep.iter().rfind(|range| range.reason == "KeepLast");
        let epoch = kept.context("the plan keeps no epoch as one of the last three")?.to.epoch();
        let clean = self.audit("audit@before", |status| {
            let verdict = status.audit.as_ref()?.verdict.clone()?;
            Some((verdict, finding(status, epoch).is_some()))
        });
        let (verdict, damaged) = clean.await?;
        ensure!(!damaged && verdict != "Critical", "the audit finds damage that was not done yet: {verdict}");
        self.narrator.line(&format!("An audit first, for comparison. Its verdict: {verdict}."));

        let victim = key::partial(epoch, VICTIM);
        self.store.root().store().delete(&self.store.root().path(&victim)?).await.context("deleting a partial")?;
        self.narrator.line(&format!("Somebody deletes {victim}, of an epoch that is sealed and kept."));
        let named = self.audit("audit@after", |status| {
            let named = finding(status, epoch).filter(|_| has_condition(status, "AuditClean", "False"))?;
            Some((status.audit.as_ref()?.verdict.clone().unwrap_or_default(), named.clone()))
        });
        let (verdict, named) = named.await?;
        self.narrator.line(&format!(
            "kubectl annotate asks for another audit. Its verdict: {verdict}. It names epoch {epoch}, vnode {VICTIM}:"
        ));
        self.narrator.quote(&format!("{} ({}): {}", named.kind, named.severity, named.detail));
        checklist.observed(Promise::DamageNamed);
        Ok(())
    }

    /// Asks for an audit by annotation, and waits until it has ended and `probe` finds in the status what it looks for.
    async fn audit<T>(
        &self,
        request: &str,
        mut probe: impl FnMut(&StateEpochPolicyStatus) -> Option<T>,
    ) -> anyhow::Result<T> {
        let before = self.policy.status().await?.audit.and_then(|audit| audit.finished_at);
        self.policy.ask_for(request).await?;
        let done = |status: &StateEpochPolicyStatus| {
            let audit = status.audit.as_ref()?;
            let ended = status.last_run_request.as_deref() == Some(request)
                && audit.phase == Some(Phase::Succeeded)
                && audit.finished_at != before;
            if ended { probe(status) } else { None }
        };
        self.policy.wait(&format!("{request} and what it was to find"), SOON, done).await
    }

    /// Waits until the fence stands at `version` for `holder`, in the status and in the bucket. Returns the time it took.
    async fn fence_stands(&self, version: Version, holder: &str) -> anyhow::Result<String> {
        let stands = |status: &StateEpochPolicyStatus| {
            let fence = status.fence.as_ref()?;
            let stands = fence.version == version && fence.holder.as_deref() == Some(holder);
            if stands { fence.lag_milliseconds } else { None }
        };
        let lag = self.policy.wait(&format!("the fence at {version}"), SOON, stands).await?;
        let registers = Registers::new(self.store.root().clone(), "demo");
        let highest = registers.read().await?.fence;
        ensure!(highest == version, "the status says that the fence is at {version}, the bucket says {highest}");
        let record = registers.fence_record(version).await?.and_then(Record::readable);
        let record = record.with_context(|| format!("the fence record {version} cannot be read"))?;
        ensure!(record.holder == holder, "the fence record names {:?}, not {holder}", record.holder);
        Ok(format!("{} ms", lag.get()))
    }
}

fn fence_key(version: Version) -> String {
    key::register(epochwarden_core::register::RegisterKind::Fence, version.get())
}

fn has_condition(status: &StateEpochPolicyStatus, type_: &str, value: &str) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == type_ && condition.status == value)
}

/// The finding that names the damage of the last act.
fn finding(status: &StateEpochPolicyStatus, epoch: Epoch) -> Option<&FindingStatus> {
    let findings = &status.audit.as_ref()?.findings;
    findings.iter().find(|finding| finding.epoch.map(ShownEpoch::epoch) == Some(epoch) && finding.vnode == Some(VICTIM))
}

fn ranges(ranges: &[PlanRange]) -> String {
    let words = |range: &PlanRange| {
        let epochs =
            if range.from == range.to { range.from.to_string() } else { format!("{}-{}", range.from, range.to) };
        format!("{epochs} ({})", range.reason)
    };
    ranges.iter().map(words).collect::<Vec<_>>().join(", ")
}

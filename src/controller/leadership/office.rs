//! Leading: the Lease is renewed for as long as the work goes on, and given back when it has ended.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use epochwarden_core::election::{DEADLINE, Decision, Deposed, decide};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Leader;
use crate::controller::supervise::Vital;

/// How long a renewal that failed is waited with.
const AGAIN: Duration = Duration::from_millis(500);

/// How long giving the Lease back may take. Where it takes longer, the Lease expires.
const RELEASE: Duration = Duration::from_secs(2);

/// What an operator that leads holds. Dropping it lets the Lease expire.
pub(in crate::controller) struct Office {
    resign: oneshot::Sender<()>,
    resigned: oneshot::Receiver<()>,
    deposed: Arc<OnceLock<Deposed>>,
    lost: CancellationToken,
    lease: String,
}

impl Office {
    /// Renews the Lease from now on, as one of the `vital` tasks. When it is lost, `shutdown` is cancelled: whoever leads no more must not
    /// work. `ended` is called when it does not lead any more, however that came.
    pub(in crate::controller) fn take(
        leader: Leader,
        vital: &Vital,
        shutdown: &CancellationToken,
        ended: impl FnOnce() + Send + 'static,
    ) -> Self {
        let (resign, told) = oneshot::channel();
        let (tell, resigned) = oneshot::channel();
        let office = Self {
            resign,
            resigned,
            deposed: Arc::default(),
            lost: CancellationToken::new(),
            lease: leader.candidate.key.to_string(),
        };
        let (deposed, lost, shutdown) = (Arc::clone(&office.deposed), office.lost.clone(), shutdown.clone());
        vital.spawn("keeping the Lease of the leader election", async move {
            if let Err(why) = leader.reign(told).await {
                // Nobody else sets it.
                let _ = deposed.set(why);
                lost.cancel();
                shutdown.cancel();
            }
            ended();
            // Nobody waits for it any more where the process is about to end.
            let _ = tell.send(());
        });
        office
    }

    /// Waits until the Lease is lost.
    pub(in crate::controller) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Why it leads no more, where it does not, in words.
    pub(in crate::controller) fn deposed(&self) -> Option<String> {
        let why = self.deposed.get()?;
        Some(format!(
            "it leads no more: of the Lease {} {why}; its work has ended, and it has to be started again",
            self.lease
        ))
    }

    /// Gives the Lease back: for when the work has ended, and not before.
    pub(in crate::controller) async fn resign(self) {
        // Who was deposed has nothing to give back.
        if self.resign.send(()).is_ok() && timeout(RELEASE, self.resigned).await.is_err() {
            tracing::warn!(
                lease = self.lease,
                "the Lease of the leader election could not be given back in time: it expires"
            );
        }
    }
}

impl Leader {
    /// Renews until it is told to resign, and then gives the Lease back; or until it is deposed. Where nobody is left to tell, the Lease is
    /// left to expire.
    async fn reign(mut self, mut told: oneshot::Receiver<()>) -> Result<(), Deposed> {
        let told = tokio::select! {
            told = &mut told => told,
            deposed = self.renew() => return Err(deposed),
        };
        if told.is_ok() {
            let key = self.candidate.key.clone();
            match self.candidate.release().await {
                Ok(()) => tracing::info!(lease = %key, "not leading any more"),
                Err(error) => {
                    tracing::warn!(lease = %key, %error, "the Lease of the leader election could not be given back: it expires");
                }
            }
        }
        Ok(())
    }

    /// Renews until it is deposed.
    async fn renew(&mut self) -> Deposed {
        loop {
            let now = self.candidate.monotonic.now();
            match decide(&self.candidate.me, self.candidate.observed(), Some(self.renewed), now) {
                Decision::StepDown(why) => {
                    tracing::error!(lease = %self.candidate.key, %why, "not leading any more: the work ends");
                    return why;
                }
                Decision::Lead { until } => sleep_until(Instant::now() + until.saturating_sub(now)).await,
                Decision::Renew | Decision::Acquire(_) | Decision::StandBy { .. } => {
                    let left = self.renewed.saturating_add(DEADLINE).saturating_sub(now);
                    // A request that is still under way at the deadline changes nothing about it.
                    let _ = timeout(left, self.renew_once()).await;
                }
            }
        }
    }

    async fn renew_once(&mut self) {
        let error = match self.candidate.claim().await {
            Ok(sent) => {
                self.renewed = sent;
                return;
            }
            Err(error) => error,
        };
        // Somebody wrote or deleted it: whether that was the end of this leadership, the Lease says.
        let changed = matches!(error.code(), Some(404 | 409));
        tracing::warn!(lease = %self.candidate.key, %error, "the Lease of the leader election could not be renewed; trying again");
        if !changed || self.candidate.look().await.is_err() {
            sleep_until(Instant::now() + AGAIN).await;
        }
    }
}

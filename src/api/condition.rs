//! The conditions of a policy.
//!
//! Each type of condition has its own enum of reasons, and a reason knows its status: the two can never disagree. What cannot occur has
//! no reason here.

mod ready;

use std::fmt;

use epochwarden_core::lease::{FenceDecision, FenceRefusal};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The longest message that a condition may have, in characters.
pub const MAX_MESSAGE: usize = 32_768;

/// What a condition says about its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Truth {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// That cannot be said.
    Unknown,
}

impl Truth {
    /// As the condition's status is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A reason of one type of condition.
pub trait Reason: Copy + fmt::Debug + Sized + 'static {
    /// The type of the condition.
    const TYPE: &'static str;

    /// Every reason of this type.
    const ALL: &'static [Self];

    /// The reason in one word.
    fn as_str(self) -> &'static str;

    /// The status that goes with it.
    fn status(self) -> Truth;
}

/// Declares the reasons of one type of condition, by status.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident = $type:literal; $($truth:ident { $($(#[$reason_doc:meta])* $reason:ident),* $(,)? })*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($($(#[$reason_doc])* $reason,)*)*
        }

        impl Reason for $name {
            const TYPE: &'static str = $type;
            const ALL: &'static [Self] = &[$($(Self::$reason,)*)*];

            fn as_str(self) -> &'static str {
                match self {
                    $($(Self::$reason => stringify!($reason),)*)*
                }
            }

            fn status(self) -> Truth {
                match self {
                    $($(Self::$reason => Truth::$truth,)*)*
                }
            }
        }
    };
}

reasons! {
    /// Whether the store can be used.
    StoreReady = "StoreReady";
    True {
        /// It answers, and what it answers can be worked with.
        Reachable,
    }
    Unknown {
        /// It was not tried yet.
        Pending,
    }
    False {
        /// It does not answer.
        Unreachable,
        /// It has no such bucket.
        BucketNotFound,
        /// It refuses the credentials.
        AccessDenied,
        /// There is no such Secret.
        SecretNotFound,
        /// The policy or its Secret says something that cannot be.
        InvalidConfiguration,
        /// Whoever runs the operator has not allowed such a store to this policy.
        CredentialsNotAllowed,
        /// The store does not keep what the product relies on.
        UnsafeStore,
        /// Another policy owns the root.
        RootConflict,
        /// The root holds a newer layout.
        UnknownLayout,
    }
}

reasons! {
    /// Whether the fence stands where the Lease says.
    FenceCurrent = "FenceCurrent";
    True {
        /// It does, durably.
        Published,
    }
    Unknown {
        /// The policy names no Lease.
        NotConfigured,
        /// The policy is suspended.
        Suspended,
        /// It was not decided yet.
        Pending,
    }
    False {
        /// The store cannot be used.
        StoreNotReady,
        /// There is no such Lease.
        LeaseNotFound,
        /// Nobody holds the Lease.
        NoHolder,
        /// The holder stopped renewing the Lease.
        LeaseExpired,
        /// The Lease gives a lower version than the fence has.
        LeaseRegressed,
        /// The fence of this version belongs to another term.
        FenceConflict,
        /// The Lease gives no version.
        InvalidVersion,
        /// The Lease gives a version far above the fence.
        VersionJump,
        /// The fence is lower than it was.
        RegisterLost,
        /// The store did not take the record.
        PublishFailed,
    }
}

reasons! {
    /// Whether epochs that nobody keeps are removed.
    PruneHealthy = "PruneHealthy";
    True {
        /// The last prune did what it should.
        Succeeded,
        /// Retention keeps everything.
        KeepsEverything,
        /// The last prune only planned, as asked.
        DryRun,
        /// A plan waits for a person's approval, as the policy wants it.
        AwaitingApproval,
        /// A prune runs.
        Running,
    }
    Unknown {
        /// There is no schedule.
        NotScheduled,
        /// The policy or its prune is suspended.
        Suspended,
        /// None has run yet.
        Pending,
    }
    False {
        /// The last prune removed nothing, because something is not as it should be.
        Held,
        /// A plan would remove so much that it waits for a person's approval.
        MassDeletion,
        /// More is left over from run to run.
        FallingBehind,
        /// The last prune could not remove everything.
        PartlyFailed,
        /// The last prune could not do its work.
        Failed,
        /// The schedule means nothing.
        InvalidSchedule,
    }
}

reasons! {
    /// Whether the last audit found nothing critical.
    AuditClean = "AuditClean";
    True {
        /// It found nothing.
        Clean,
        /// It found warnings.
        Warnings,
    }
    Unknown {
        /// There is no schedule.
        NotScheduled,
        /// The policy or its audit is suspended.
        Suspended,
        /// None has run yet.
        Pending,
    }
    False {
        /// It found something critical.
        Findings,
        /// It could not do its work.
        Failed,
        /// The schedule means nothing.
        InvalidSchedule,
    }
}

reasons! {
    /// Whether the policy does its work: the store can be used, and no register is lost.
    Ready = "Ready";
    True {
        /// It does.
        Reachable,
    }
    Unknown {
        /// The store was not tried yet.
        Pending,
    }
    False {
        /// The store does not answer.
        Unreachable,
        /// The store has no such bucket.
        BucketNotFound,
        /// The store refuses the credentials.
        AccessDenied,
        /// There is no such Secret.
        SecretNotFound,
        /// The policy or its Secret says something that cannot be.
        InvalidConfiguration,
        /// Whoever runs the operator has not allowed such a store to this policy.
        CredentialsNotAllowed,
        /// The store does not keep what the product relies on.
        UnsafeStore,
        /// Another policy owns the root.
        RootConflict,
        /// The root holds a newer layout.
        UnknownLayout,
        /// A register is lower than it was.
        RegisterLost,
    }
}

reasons! {
    /// Nothing will become better until a person does something. Present only while it is so, as kstatus reads it.
    Stalled = "Stalled";
    True {
        /// The policy or its Secret says something that cannot be.
        InvalidConfiguration,
        /// Whoever runs the operator has not allowed such a store to this policy.
        CredentialsNotAllowed,
        /// The store does not keep what the product relies on.
        UnsafeStore,
        /// Another policy owns the root.
        RootConflict,
        /// The root holds a newer layout.
        UnknownLayout,
        /// A register is lower than it was.
        RegisterLost,
    }
}

reasons! {
    /// It may become better by itself. Present only while it is so, as kstatus reads it.
    Reconciling = "Reconciling";
    True {
        /// The store does not answer.
        Unreachable,
        /// There is no such Secret yet.
        SecretNotFound,
        /// The store was not tried yet.
        Pending,
    }
}

impl From<&FenceDecision> for FenceCurrent {
    fn from(decision: &FenceDecision) -> Self {
        match decision {
            FenceDecision::Current(_) => Self::Published,
            FenceDecision::Publish(_) | FenceDecision::ReadRecord(_) | FenceDecision::AwaitingAnnotation { .. } => {
                Self::Pending
            }
            FenceDecision::Refused(refusal) => refusal.into(),
        }
    }
}

impl From<&FenceRefusal> for FenceCurrent {
    fn from(refusal: &FenceRefusal) -> Self {
        match refusal {
            FenceRefusal::LeaseNotFound { .. } => Self::LeaseNotFound,
            FenceRefusal::NoHolder { .. } => Self::NoHolder,
            FenceRefusal::LeaseExpired { .. } => Self::LeaseExpired,
            FenceRefusal::LeaseRegressed { .. } => Self::LeaseRegressed,
            FenceRefusal::FenceConflict { .. } => Self::FenceConflict,
            FenceRefusal::InvalidVersion { .. } => Self::InvalidVersion,
            FenceRefusal::VersionJump { .. } => Self::VersionJump,
            FenceRefusal::RegisterLost(_) => Self::RegisterLost,
        }
    }
}

/// What all conditions of one status have in common.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// The generation of the policy that was observed.
    pub generation: i64,
    /// The conditions as they were.
    pub previous: &'a [Condition],
    /// The time of the observation.
    pub now: Timestamp,
}

impl Observation<'_> {
    /// The condition of a reason. It keeps its time while its status stays; a message that is too long is cut.
    #[must_use]
    pub fn condition<R: Reason>(&self, reason: R, message: impl Into<String>) -> Condition {
        let status = reason.status().as_str();
        let before = self.previous.iter().find(|condition| condition.type_ == R::TYPE && condition.status == status);
        Condition {
            type_: R::TYPE.to_owned(),
            status: status.to_owned(),
            reason: reason.as_str().to_owned(),
            message: bounded(message.into()),
            observed_generation: Some(self.generation),
            last_transition_time: before.map_or(Time(self.now), |condition| condition.last_transition_time.clone()),
        }
    }
}

fn bounded(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
        message.truncate(end);
        message.pop();
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests;

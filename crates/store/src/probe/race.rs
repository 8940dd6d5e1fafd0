//! Creates of one key at once.

use bytes::Bytes;
use futures::future::join_all;
use object_store::{Error, PutMode, PutPayload, PutResult};

use super::problem::ProblemKind;
use super::{Stop, Trial};
use crate::create::{self, Created};
use crate::error::{StoreError, cause};
use crate::http::UnderLock;
use crate::observe::Operation;

/// How many creates race.
pub(super) const RACERS: usize = 16;

/// How the creates were answered.
#[derive(Default)]
struct Answers {
    /// The racers that were told that they wrote the key.
    winners: Vec<usize>,
    /// Why others were not, where it is not that the key is there.
    failures: Vec<Error>,
}

fn body(racer: usize) -> Bytes {
    Bytes::from(format!("racer {racer}"))
}

impl Trial {
    /// One wins, the others are refused, and a loser that reads the key back sees the winner's body. [`RACERS`] PUTs and a GET.
    pub(super) async fn race(&mut self) -> Result<(), Stop> {
        let key = self.keys.raced();
        let answers = self.start_race(&key).await?;
        if answers.winners.len() > 1 {
            self.problem(
                ProblemKind::OverwritesOnCreate,
                format_args!(
                    "{} of {RACERS} creates of one key that raced were all answered with success, so that two leaders could seal the same \
                     epoch",
                    answers.winners.len()
                ),
            );
            return Ok(());
        }
        let read = self.read_back(&key).await?;
        // Who wrote what stands there, of those who may have.
        let writer = read.as_ref().and_then(|read| (0..RACERS).find(|racer| *read == body(*racer)));
        match (answers.winners.first(), writer) {
            (Some(winner), Some(writer)) if *winner == writer => {}
            // An answer was lost, or a create that was sent again met its own write.
            (None, Some(_)) => {}
            (Some(winner), _) => {
                let seen = if read.is_none() { "nothing" } else { "another's write" };
                self.problem(
                    ProblemKind::ReadsAnotherBack,
                    format_args!("of {RACERS} creates that raced, number {winner} was answered with success, and {seen} was read back"),
                );
                return Ok(());
            }
            (None, None) => return self.nobody_won(&key, answers).await,
        }
        self.capabilities.conditional_create = true;
        Ok(())
    }

    async fn start_race(&mut self, key: &str) -> Result<Answers, Stop> {
        let path = self.path(key)?;
        self.remains = true;
        let store = self.root.store();
        let creates =
            (0..RACERS).map(|racer| store.put_opts(&path, PutPayload::from(body(racer)), PutMode::Create.into()));
        let results: Vec<Result<PutResult, Error>> = join_all(creates).await;
        let mut answers = Answers::default();
        for (racer, result) in results.into_iter().enumerate() {
            match result {
                Ok(answer) => {
                    self.saw_version(&answer);
                    answers.winners.push(racer);
                }
                Err(Error::AlreadyExists { .. }) => {}
                Err(error) => answers.failures.push(error),
            }
        }
        Ok(answers)
    }

    /// What stands there, and whether under a lock.
    async fn read_back(&mut self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let failed = |error| self.root.error(Operation::Get, key, error);
        let object = create::open(self.root.store().as_ref(), &self.path(key)?).await.map_err(failed)?;
        let Some(object) = object else { return Ok(None) };
        let locked = object.extensions.get::<UnderLock>().is_some();
        let body = object.bytes().await.map_err(failed)?;
        if locked {
            self.capabilities.object_lock = true;
            self.problem(
                ProblemKind::ObjectLock,
                "the bucket keeps what is written to it under a lock, so that what is pruned is still stored and paid for until that ends",
            );
        }
        Ok(Some(body))
    }

    /// Nothing stands there: either all were conflicts with each other, or the store takes no creates, or no writes at all.
    async fn nobody_won(&mut self, key: &str, answers: Answers) -> Result<(), Stop> {
        let Some(error) = answers.failures.into_iter().next() else {
            return self.create_alone(key).await;
        };
        if cause::locked(&error) || !cause::unsupported(&error) {
            return Err(self.refused_write(key, error));
        }
        // Where a write without a condition goes through, the condition is what was refused.
        self.put(key, "written without a condition").await?;
        self.problem(
            ProblemKind::RefusesCreate,
            format_args!("the store refuses to create a key only where there is none: {}", cause::plain(&error)),
        );
        Ok(())
    }

    /// All racers met each other's requests in flight. A last one has nobody to meet.
    async fn create_alone(&mut self, key: &str) -> Result<(), Stop> {
        let path = self.path(key)?;
        let created = create::create(self.root.store(), &path, &body(RACERS)).await;
        match created.map_err(|error| self.root.error(Operation::Put, key, error))? {
            Created::Written | Created::There(_) => self.capabilities.conditional_create = true,
            Created::Unknown(_) => self.problem(
                ProblemKind::RefusesCreate,
                "the store answers every create of a key with a conflict, though none is there",
            ),
        }
        Ok(())
    }
}

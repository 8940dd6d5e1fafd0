//! A step in words that a person can read.

use super::{Action, Mode, Registers, State, Step, Tenure, Term};
use crate::Words;

impl Words for Registers {
    fn in_words(&self, before: &State, action: &Action, after: &State) -> String {
        let of = |term: Term| {
            let Tenure { uid, holder, transitions } = self.tenures[usize::from(term)];
            match self.mode {
                Mode::Floor => format!("pruner {}", term + 1),
                _ => format!("{holder} (Lease {uid}, transitions {transitions})"),
            }
        };
        let records = |state: &State| {
            let shown = state.records.iter().enumerate().filter_map(|(index, record)| Some((index + 1, (*record)?)));
            let shown: Vec<String> = shown.map(|(number, term)| format!("{number} = {}", of(term))).collect();
            if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
        };
        match *action {
            Action::LeaseMoves => format!("the Lease passes to {}", of(after.lease)),
            Action::Publisher(index) => {
                let told = if after.told == before.told { "" } else { "; REPORTS it as published" };
                let (was, is) = (before.publishers[index].step, after.publishers[index].step);
                let what = match was {
                    Step::Idle if matches!(is, Step::SawLease(_)) => match is {
                        Step::SawLease(term) => format!("reads the Lease: {}", of(term)),
                        _ => String::new(),
                    },
                    Step::Idle | Step::SawLease(_) => format!("lists: the highest is {}", before.highest()),
                    Step::Listed { highest, .. } => format!("reads record {highest}"),
                    Step::ReadRecord { term, .. } => {
                        let read = if term.is_none() {
                            format!("reads the Lease ({}), and ", of(before.lease))
                        } else {
                            String::new()
                        };
                        match is {
                            Step::Creating { number, term } => format!("{read}sends record {number} for {}", of(term)),
                            Step::Trimming { .. } => format!("{read}finds that its term stands"),
                            _ => format!("{read}has nothing to publish"),
                        }
                    }
                    Step::Compare { number, .. } => format!("compares record {number} with its own"),
                    Step::Trimming { .. } => format!("trims; records: {}", records(after)),
                    Step::Creating { .. } => String::new(),
                };
                format!("publisher {} {what}{told}", index + 1)
            }
            Action::Lands(index) => {
                let told = if after.told == before.told { "" } else { "; it REPORTS it as published" };
                format!("the create of publisher {} lands; records: {}{told}", index + 1, records(after))
            }
            Action::GivesUp(index) => format!("publisher {} hears no answer, and begins again", index + 1),
            Action::StrayLands(index) => {
                format!("a create of publisher {} that nobody waits for lands; records: {}", index + 1, records(after))
            }
            Action::Loss => "people lose all records".to_owned(),
        }
    }
}

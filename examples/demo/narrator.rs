//! What the demo prints.

use std::fs;
use std::io::{self, ErrorKind, IsTerminal};
use std::path::Path;

use anyhow::Context;
use tokio::time::Instant;

use crate::cast;
use crate::checklist::{Checklist, Promise};

/// Where long words of others are broken into lines, in characters.
const WIDTH: usize = 100;

/// How much of each log a failure shows.
const TAIL_LINES: usize = 25;

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";

/// The narrator: plain lines, each with the seconds since the beginning; colours on a terminal only.
pub(crate) struct Narrator {
    began: Instant,
    colours: bool,
}

impl Narrator {
    pub(crate) fn begin() -> Self {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { began: Instant::now(), colours }
    }

    /// A new act begins.
    pub(crate) fn act(&self, title: &str) {
        println!("\n{}", self.paint(BOLD, title));
    }

    /// One thing that happened.
    pub(crate) fn line(&self, text: &str) {
        println!("{}  {text}", self.paint(DIM, &format!("{:>5} s", self.seconds())));
    }

    /// Something that a program said itself.
    pub(crate) fn quote(&self, text: &str) {
        for line in wrap(text) {
            println!("{:>9}{} {line}", "", self.paint(DIM, "|"));
        }
    }

    /// What went wrong.
    pub(crate) fn failure(&self, reason: &str) {
        println!("\n{}  {}", self.paint(DIM, &format!("{:>5} s", self.seconds())), self.paint(RED, reason));
    }

    /// The ends of the logs in `folder`.
    pub(crate) fn logs(&self, folder: &Path) -> anyhow::Result<()> {
        for name in cast::LOGS {
            let log = match fs::read(folder.join(name)) {
                Ok(log) => String::from_utf8_lossy(&log).into_owned(),
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error).with_context(|| format!("reading {name}")),
            };
            let lines: Vec<&str> = log.lines().collect();
            println!("\n{}", self.paint(BOLD, &format!("The end of {name}:")));
            lines.iter().skip(lines.len().saturating_sub(TAIL_LINES)).for_each(|line| println!("  {line}"));
        }
        Ok(())
    }

    /// What was promised, and whether it was seen.
    pub(crate) fn checklist(&self, checklist: &Checklist) {
        self.act("What was seen");
        for promise in Promise::ALL {
            let mark = if checklist.has(promise) { self.paint(GREEN, "✓") } else { self.paint(RED, "✗") };
            println!("  {mark} {}", promise.as_str());
        }
        println!("\n{} seconds in all.", self.seconds());
    }

    fn seconds(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The text in lines that are no longer than [`WIDTH`], where its words allow it.
pub(crate) fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

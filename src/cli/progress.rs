//! What is drawn on standard error while a verb works. Where that is not a terminal, nothing is.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::human;

const SPINNER: &str = "{spinner} {msg}";
const BAR: &str = "{msg} {bar:40} {human_pos} of {human_len} objects, {eta} left";

/// How often a drawing moves on by itself.
const TICK: Duration = Duration::from_millis(120);

/// Whether progress is drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    wanted: bool,
}

impl Progress {
    pub(super) const fn new(wanted: bool) -> Self {
        Self { wanted }
    }

    fn target(self) -> ProgressDrawTarget {
        // On a stream that is not a terminal indicatif draws nothing by itself.
        if self.wanted { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
    }

    /// Begins to draw something whose end is not known.
    pub(super) fn start(self, what: &str) -> Drawing {
        let bar = ProgressBar::with_draw_target(None, self.target());
        bar.set_style(style(SPINNER));
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(TICK);
        Drawing { bar, what: what.to_owned() }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants; should one be wrong, the default drawing does.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// What is drawn. It goes when it is dropped.
#[derive(Debug)]
pub(super) struct Drawing {
    bar: ProgressBar,
    what: String,
}

impl Drawing {
    /// What is being done now.
    pub(super) fn say(&self, text: &str) {
        self.bar.set_message(text.to_owned());
    }

    /// So many objects have passed by.
    pub(super) fn objects(&self, objects: u64) {
        self.say(&format!("{}: {}", self.what, human::counted(objects, "object", "objects")));
    }

    /// So many objects are done, of so many. From now on it is a bar.
    pub(super) fn fill(&self, what: &str, done: u64, total: u64) {
        let begins = self.bar.length().is_none();
        self.bar.set_length(total);
        if begins {
            self.bar.set_style(style(BAR));
            self.say(what);
        }
        self.bar.set_position(done);
    }
}

impl Drop for Drawing {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_templates() {
        for template in [SPINNER, BAR] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn a_drawing_becomes_a_bar_when_its_end_is_known() {
        let drawing = Progress::new(false).start("listing");
        drawing.objects(1234);
        assert_eq!((drawing.bar.message().as_str(), drawing.bar.length()), ("listing: 1,234 objects", None));
        drawing.fill("deleting", 3, 9);
        assert_eq!((drawing.bar.message().as_str(), drawing.bar.length()), ("deleting", Some(9)));
        assert_eq!(drawing.bar.position(), 3);
    }
}

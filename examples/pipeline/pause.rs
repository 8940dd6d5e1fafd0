//! A switch that stops a leader where it hurts most, as a long garbage collection or a frozen virtual machine does.

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::watch;

/// Whether the process is to stand still. The words `pause` and `resume` on standard input switch it.
pub(crate) struct Pause {
    switch: watch::Receiver<bool>,
}

impl Pause {
    /// Follows standard input. Once that has ended, the process can no longer be paused.
    pub(crate) fn on_standard_input() -> Self {
        let (sender, switch) = watch::channel(false);
        tokio::spawn(async move {
            let mut lines = BufReader::new(tokio::io::stdin()).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                match line.trim() {
                    "pause" => sender.send_replace(true),
                    "resume" => sender.send_replace(false),
                    other => {
                        eprintln!("write pause or resume, not {other:?}");
                        continue;
                    }
                };
            }
            sender.send_replace(false);
        });
        Self { switch }
    }

    /// Returns at once unless the switch is on; then when it goes off. No Lease is renewed meanwhile, and nothing is noticed.
    pub(crate) async fn between_writing_and_sealing(&mut self, epoch: u64) -> anyhow::Result<()> {
        if *self.switch.borrow() {
            println!("paused before sealing {epoch}");
            self.switch.wait_for(|paused| !paused).await?;
            println!("resumed before sealing {epoch}");
        }
        Ok(())
    }
}

//! Being told to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::{CliError, Exit};
use super::output::complain;

/// A token that the first SIGINT or SIGTERM cancels, so that work ends in order. The second one ends the process at once.
pub(super) fn stop() -> Result<CancellationToken, CliError> {
    let listen = |kind| signal(kind).map_err(|source| CliError::Runtime { source });
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        either(&mut interrupt, &mut terminate).await;
        stop.cancel();
        complain("stopping; once more to stop at once");
        either(&mut interrupt, &mut terminate).await;
        std::process::exit(Exit::Failed as i32);
    });
    Ok(token)
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

//! The operator is killed, again and again, while a pipeline seals and its leader changes.

use anyhow::Result;

use crate::support::cluster;
use crate::support::kills::{Stage, survives, two_at_once};

/// How often the operator is killed.
const KILLS: u32 = 20;

#[tokio::test]
async fn killed_at_twenty_random_moments_on_a_folder_nothing_is_lost() -> Result<()> {
    survives(cluster().await?, Stage::Folder, KILLS).await
}

#[tokio::test]
async fn killed_at_twenty_random_moments_on_s3_nothing_is_lost() -> Result<()> {
    survives(cluster().await?, Stage::S3, KILLS).await
}

#[tokio::test]
async fn two_operators_for_a_whole_scenario_do_no_harm_and_come_to_rest() -> Result<()> {
    two_at_once(cluster().await?, Stage::Folder, 8).await
}

//! The API server is away for a minute.

use std::time::Duration;

use anyhow::Result;

use crate::support::away::catches_up_after;

#[tokio::test]
async fn while_the_api_server_is_away_for_a_minute_nothing_more_is_deleted_and_then_all_is_caught_up_with() -> Result<()>
{
    catches_up_after(Duration::from_mins(1)).await
}

//! The example pipeline in pods, guarded by the operators that the chart installs.

use std::time::Duration;

use anyhow::{Result, ensure};
use epochwarden_testkit::node::{NODE_ADDRESS, Node, isolated};
use epochwarden_testkit::{s3server::S3Server, wait::until};
use serde_json::json;

use crate::release;
use crate::tenant::{APP, BUCKET, import_pipeline, leading, said, tenant};

const SOON: Duration = Duration::from_mins(2);

#[test]
fn pods_of_the_pipeline_seal_epochs_and_the_fence_moves_with_their_lease() -> Result<()> {
    isolated("pipeline::pods_of_the_pipeline_seal_epochs_and_the_fence_moves_with_their_lease", async || {
        let node = Node::start().await?;
        let server = S3Server::start_at(NODE_ADDRESS).await?;
        server.create_bucket(BUCKET)?;
        node.import(&release::operator_image(&node)?)?;
        import_pipeline(&node)?;
        node.told(&["create", "-f", "-"], &release::namespace()).await?;
        release::install(&node).await?;
        let tenant = tenant(&server, &server.endpoint(), &json!({}), &[]);
        node.told(&["create", "-f", "-"], &tenant.to_string()).await?;

        let first = leading(&node, 1).await?;
        until("an epoch is sealed", SOON, async || said(&node, &first, "sealed 3:").await).await?;
        node.told(&["--namespace", APP, "delete", "pod", &first, "--grace-period=0", "--force"], "").await?;
        let second = leading(&node, 2).await?;
        ensure!(second != first, "{first} leads again");
        until("its successor seals", SOON, async || said(&node, &second, "sealed ").await).await?;
        let fence = ["--namespace", APP, "get", "stateepochpolicy", APP, "-o", "jsonpath={.status.fence.version}"];
        let moved = async || node.told(&fence, "").await.ok().filter(|version| version == "2");
        until("the policy shows the fence of the second term", SOON, moved).await?;
        // What the first leader was told is sealed is there: the second began above it.
        ensure!(server.bucket_folder(BUCKET).join("orders/epoch=3/_COMMIT").exists(), "epoch 3 has gone");
        Ok(())
    })
}

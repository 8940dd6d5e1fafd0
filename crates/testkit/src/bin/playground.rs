//! The servers of the tests, to try things out by hand: starts a cluster and an S3 server with the bucket `playground`, prints
//! what a shell needs to reach them, and keeps them until its standard input ends or it is interrupted.

use std::io::{self, Write};

use anyhow::Context;
use epochwarden_testkit::apiserver::Cluster;
use epochwarden_testkit::s3server::S3Server;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let s3 = S3Server::start().await?;
    s3.create_bucket("playground")?;

    let mut out = io::stdout().lock();
    writeln!(out, "export KUBECONFIG='{}'", cluster.kubeconfig().display())?;
    writeln!(out, "export AWS_ENDPOINT_URL='{}'", s3.endpoint())?;
    writeln!(out, "export AWS_ACCESS_KEY_ID='{}'", s3.access_key())?;
    writeln!(out, "export AWS_SECRET_ACCESS_KEY='{}'", s3.secret_key())?;
    writeln!(out, "export AWS_REGION=us-east-1")?;
    let ids: Vec<String> =
        cluster.process_ids().into_iter().chain([s3.process_id()]).map(|id| id.to_string()).collect();
    writeln!(out, "# processes: {}", ids.join(" "))?;
    out.flush()?;

    io::copy(&mut io::stdin(), &mut io::sink()).context("waiting for the end of standard input")?;
    Ok(())
}

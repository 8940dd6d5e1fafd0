//! Processes that die at each point that has a name, and those that come after them: in a folder and on the S3 server.

mod part;
mod scene;

use std::collections::BTreeSet;

use epochwarden_core::Numbering;
use epochwarden_core::finding::FindingKind;
use epochwarden_store::crash::{PIPELINE_POINTS, POINTS};
use futures::{StreamExt, stream};
use tokio::time::Instant;

use self::part::Part;
use self::scene::{Ended, Place, Scene};

/// How many points are tried at the same time.
const AT_ONCE: usize = 4;

/// The environment's variable that repeats a run: the random moments are then the same ones, as far as the machine allows.
const SEED: &str = "EPOCHWARDEN_SEED";

/// What a crash may leave besides whole epochs: partials of one that was not sealed or is sealed no more, of which those below the floor
/// are told.
fn leaves_at_most_a_leak(found: &[FindingKind]) {
    assert!(found.iter().all(|kind| *kind == FindingKind::Leak), "{found:?}");
}

/// Dies at this point, again at the same one while the next process of the same name takes up the work, and then no more. Whether the
/// point was passed so often at all.
async fn dies_at(test: &str, place: Place, numbering: Numbering, point: &str, time: u32) -> bool {
    let mut scene = Scene::new(test, place, numbering).await;
    assert_eq!(scene.play("a", None).await, Ended::Well);
    assert_eq!(scene.look().await, []);
    if scene.play("b", Some(&format!("{point}:{time}"))).await == Ended::Well {
        return false;
    }
    leaves_at_most_a_leak(&scene.look().await);
    assert_eq!(scene.play("b", Some(point)).await, Ended::Died);
    leaves_at_most_a_leak(&scene.look().await);
    assert_eq!(scene.play("c", None).await, Ended::Well);
    assert_eq!(scene.look().await, []);
    scene.is_at_rest().await;
    true
}

/// Dies at each point so many times as a process passes it, but no more than `most`.
async fn wherever_it_dies(test: &str, place: Place, most: u32) {
    if let Some(part) = Part::of_this_process() {
        return part.play().await;
    }
    let ways = [PIPELINE_POINTS, POINTS].concat().into_iter().flat_map(|point| {
        // Each of the two ways of numbering with which everything is promised.
        [Numbering::Plain, Numbering::Versioned].map(|numbering| (point, numbering))
    });
    let died = stream::iter(ways).map(async |(point, numbering)| {
        let mut times = 0;
        while times < most && dies_at(test, place, numbering, point, times + 1).await {
            times += 1;
        }
        (point, times)
    });
    let died: Vec<(&str, u32)> = died.buffer_unordered(AT_ONCE).collect().await;
    let never: BTreeSet<&str> = died.iter().filter(|(_, times)| *times == 0).map(|(point, _)| *point).collect();
    assert!(never.is_empty(), "no process has come to {never:?}");
    println!("{} deaths, each twice", died.iter().map(|(_, times)| times).sum::<u32>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_a_process_dies_in_a_folder_the_next_one_goes_on() {
    wherever_it_dies("crashes::wherever_a_process_dies_in_a_folder_the_next_one_goes_on", Place::Folder, u32::MAX)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_a_process_dies_on_s3_the_next_one_goes_on() {
    wherever_it_dies("crashes::wherever_a_process_dies_on_s3_the_next_one_goes_on", Place::S3, 1).await;
}

/// Points lie between requests, and a moment may lie in the middle of one.
async fn killed_at_any_moment(test: &str, numbering: Numbering, kills: u32) {
    if let Some(part) = Part::of_this_process() {
        return part.play().await;
    }
    let seed = std::env::var(SEED).map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("the random moments are those of {SEED}={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut scene = Scene::new(test, Place::Folder, numbering).await;
    let began = Instant::now();
    assert_eq!(scene.play("a", None).await, Ended::Well);
    let whole = began.elapsed();
    let mut died = 0;
    for _ in 0..kills {
        let alive = whole.mul_f64(random.f64());
        died += u32::from(scene.play_for("b", alive).await == Ended::Died);
        leaves_at_most_a_leak(&scene.look().await);
        if random.bool() {
            assert_eq!(scene.play("b", None).await, Ended::Well);
            assert_eq!(scene.look().await, []);
            scene.is_at_rest().await;
        }
    }
    assert_ne!(died, 0, "all {kills} came to their end, within {whole:?}");
    println!("{died} of {kills} were killed, {} in the middle of a write", scene.half_written());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_with_plain_numbers_that_are_killed_at_random_moments_lose_nothing() {
    let test = "crashes::processes_with_plain_numbers_that_are_killed_at_random_moments_lose_nothing";
    killed_at_any_moment(test, Numbering::Plain, 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_with_versioned_numbers_that_are_killed_at_random_moments_lose_nothing() {
    let test = "crashes::processes_with_versioned_numbers_that_are_killed_at_random_moments_lose_nothing";
    killed_at_any_moment(test, Numbering::Versioned, 30).await;
}

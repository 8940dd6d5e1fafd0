//! End to end: the real operator and command line against a real API server, folders and a real S3 server.

mod cel;
mod cli;
mod fence;
mod process;
mod runs;
mod stores;
mod support;

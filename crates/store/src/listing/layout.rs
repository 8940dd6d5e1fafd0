//! The marks of a newer layout at the top of a root.

use epochwarden_core::key::Key;
use futures::TryStreamExt;

use super::pages::Pages;
use crate::error::StoreError;
use crate::observe::Operation;
use crate::root::Root;

/// How the folders of a newer layout begin.
const MARK: &str = "state-v";

/// Fails with [`StoreError::NewerLayout`] where the top of the root shows a layout that this version does not know. One LIST, whose page
/// is empty where all is well; in a folder that of its top. What an epoch holds is not looked at. Cancel safe: it only reads.
pub async fn check_layout(root: &Root) -> Result<(), StoreError> {
    root.check_present().await?;
    let newer = |folder: &object_store::path::Path| {
        let key = format!("{}/", root.relative(folder)?);
        (Key::parse(&key) == Key::NewerLayout).then_some(key)
    };
    let refuse = |key: Option<String>| key.map_or(Ok(()), |key| Err(StoreError::NewerLayout { key }));
    if let Some(pages) = Pages::new(root, MARK, Some("/")) {
        let mut pages = std::pin::pin!(pages.stream());
        while let Some(page) = pages.try_next().await? {
            refuse(page.folders.iter().find_map(newer))?;
        }
        return Ok(());
    }
    let prefix = Some(root.prefix()).filter(|prefix| !prefix.is_root());
    let top = root.store().list_with_delimiter(prefix).await.map_err(|error| root.error(Operation::List, "", error))?;
    refuse(top.common_prefixes.iter().find_map(newer))
}

//! A store URL, taken apart.

use url::Url;

use super::Provider;
use crate::error::StoreError;

/// Where a root is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) provider: Provider,
    /// The bucket or container; empty for a folder.
    pub(super) bucket: String,
    /// Azure's account, where the URL names it.
    pub(super) account: Option<String>,
    /// The prefix below the bucket, or the folder's absolute path; without a slash at either end for a prefix.
    pub(super) path: String,
    /// The canonical text, without anything secret.
    pub(super) text: String,
}

impl Location {
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        let shown = without_userinfo(url);
        let refuse = |reason: &str| StoreError::InvalidUrl { url: shown.clone(), reason: reason.to_owned() };
        let parsed = Url::parse(url).map_err(|error| {
            refuse(&format!("{error}; write s3://bucket/prefix, gs://, az://, abfs:// or file:///folder"))
        })?;
        let provider = Provider::of_scheme(parsed.scheme())
            .ok_or_else(|| refuse("unknown scheme; write one of s3://, gs://, az://, abfs:// and file:///"))?;
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(refuse("remove the query or fragment; options go into store options"));
        }
        if parsed.password().is_some() {
            return Err(refuse("remove the password; credentials go into a Secret or store options"));
        }
        if parsed.port().is_some() {
            return Err(refuse("remove the port; an endpoint goes into store options, such as aws_endpoint"));
        }
        let segments = segments(url, &refuse)?;
        let host = parsed.host_str().unwrap_or_default();
        let joined = segments.join("/");
        if provider == Provider::Local {
            if !host.is_empty() && host != "localhost" {
                return Err(refuse("a folder has no host; write file:///absolute/folder"));
            }
            if joined.is_empty() {
                return Err(refuse("name a folder; write file:///absolute/folder"));
            }
            let path = format!("/{joined}");
            return Ok(Self { provider, bucket: String::new(), account: None, text: format!("file://{path}"), path });
        }
        let (bucket, account) = bucket_of(provider, &parsed, host).map_err(|reason| refuse(&reason))?;
        let authority =
            if parsed.username().is_empty() { host.to_owned() } else { format!("{}@{host}", parsed.username()) };
        let slash = if joined.is_empty() { "" } else { "/" };
        let text = format!("{}://{authority}{slash}{joined}", parsed.scheme());
        Ok(Self { provider, bucket, account, path: joined, text })
    }
}

/// The bucket, and on Azure the account where the URL names one.
fn bucket_of(provider: Provider, url: &Url, host: &str) -> Result<(String, Option<String>), String> {
    if host.is_empty() {
        return Err(format!("name the bucket; write {}://bucket/prefix", url.scheme()));
    }
    let plain = |name: &str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            && name.contains(|c: char| c != '.')
    };
    if !plain(host) || !(url.username().is_empty() || plain(url.username())) {
        return Err("a bucket's name holds letters, digits, dots, dashes and underscores; correct it".into());
    }
    if url.username().is_empty() {
        return if provider == Provider::Azure && host.contains('.') {
            Err("a container has no dot; write az://container/prefix, or abfs://container@account.dfs.core.windows.net/prefix".into())
        } else {
            Ok((host.to_owned(), None))
        };
    }
    if url.scheme() != "abfs" {
        return Err(format!("remove what stands before the @; write {}://bucket/prefix", url.scheme()));
    }
    match host.split_once('.') {
        Some((account, "dfs.core.windows.net" | "blob.core.windows.net")) => {
            Ok((url.username().to_owned(), Some(account.to_owned())))
        }
        _ => Err("unknown host; write abfs://container@account.dfs.core.windows.net/prefix".into()),
    }
}

/// The segments of the path as written: the parser of URLs would resolve `..` in silence.
fn segments(url: &str, refuse: &dyn Fn(&str) -> StoreError) -> Result<Vec<String>, StoreError> {
    let after = url.split_once("://").map_or("", |(_, after)| after);
    let path = after.split_once('/').map_or("", |(_, path)| path);
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let segment = |segment: &str| {
        if segment.is_empty() {
            return Err(refuse("remove the empty segment (two slashes in a row)"));
        }
        if segment == "." || segment == ".." {
            return Err(refuse("remove the . or .. segment"));
        }
        if segment.starts_with("epoch=") || segment == epochwarden_core::key::REGISTERS {
            return Err(refuse("name the root itself: remove the epoch= or _epochwarden segment and what follows it"));
        }
        if segment.contains(['%', '\\']) || segment.chars().any(char::is_control) {
            return Err(refuse("write the prefix as it is, without %, \\ and control characters"));
        }
        Ok(segment.to_owned())
    };
    path.split('/').map(segment).collect()
}

/// The URL without what stands before an `@`, query or fragment: it may be a secret put in the wrong place.
fn without_userinfo(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.chars().take(64).collect();
    };
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
    match authority.rsplit_once('@') {
        Some((userinfo, host)) if userinfo.contains(':') => format!("{scheme}://***@{host}/{path}"),
        _ => format!("{scheme}://{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_read_from_its_url() {
        for (url, provider, bucket, account, path, text) in [
            ("s3://state", Provider::S3, "state", None, "", "s3://state"),
            ("s3://state/", Provider::S3, "state", None, "", "s3://state"),
            ("s3://My_State.x/a b/c/", Provider::S3, "My_State.x", None, "a b/c", "s3://My_State.x/a b/c"),
            ("gs://state/orders", Provider::Gcs, "state", None, "orders", "gs://state/orders"),
            ("az://state/orders", Provider::Azure, "state", None, "orders", "az://state/orders"),
            ("abfs://state/orders", Provider::Azure, "state", None, "orders", "abfs://state/orders"),
            (
                "abfs://state@acct.dfs.core.windows.net/orders",
                Provider::Azure,
                "state",
                Some("acct"),
                "orders",
                "abfs://state@acct.dfs.core.windows.net/orders",
            ),
            ("file:///srv/state/", Provider::Local, "", None, "/srv/state", "file:///srv/state"),
        ] {
            let location = Location::parse(url).unwrap();
            assert_eq!(
                location,
                Location {
                    provider,
                    bucket: bucket.into(),
                    account: account.map(str::to_owned),
                    path: path.into(),
                    text: text.into()
                },
                "{url}"
            );
        }
    }

    #[test]
    fn a_url_that_is_no_root_is_refused_with_what_to_write() {
        for (url, says) in [
            ("state/orders", "write s3://bucket/prefix"),
            ("http://state/orders", "unknown scheme"),
            ("s3a://state/orders", "unknown scheme"),
            ("memory:///", "unknown scheme"),
            ("s3://state/orders?versionId=1", "query or fragment"),
            ("s3://state/orders#a", "query or fragment"),
            ("s3://user:hunter2@state/orders", "remove the password"),
            ("s3://user@state/orders", "before the @"),
            ("s3://state:9000/orders", "remove the port"),
            ("s3:///orders", "name the bucket"),
            ("s3://a%2Fb/orders", "a bucket's name"),
            ("s3://../orders", "a bucket's name"),
            ("s3://state//orders", "empty segment"),
            ("s3://state/a/../orders", ".. segment"),
            ("s3://state/a/./orders", ".. segment"),
            ("s3://state/orders/epoch=5", "name the root itself"),
            ("s3://state/epoch=x/y", "name the root itself"),
            ("s3://state/orders/_epochwarden/fence", "name the root itself"),
            ("s3://state/or%64ers", "without %"),
            ("az://a.b/orders", "a container has no dot"),
            ("abfs://state@example.com/orders", "unknown host"),
            ("file://host/srv", "no host"),
            ("file:///", "name a folder"),
        ] {
            let error = Location::parse(url).unwrap_err();
            assert!(matches!(error, StoreError::InvalidUrl { .. }), "{url}: {error:?}");
            assert!(error.to_string().contains(says), "{url}: {error}");
            assert!(!error.to_string().contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{error}");
        }
    }
}

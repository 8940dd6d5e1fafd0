//! Whether what answers a listing is one, and whole.
//!
//! The client takes any XML for a page of keys, of none where it finds none; takes a page that goes on without saying where for the last
//! one; and follows whatever token it is given. So a portal in front of the store would empty the bucket, a store that pages in another
//! way would cut it short, and one that answers with the token that it was asked with would never come to an end.

use std::error::Error;

use http::Uri;
use object_store::client::{HttpError, HttpErrorKind, HttpResponse, HttpResponseBody};
use thiserror::Error;

use crate::error::ErrorClass;

/// Within how many bytes an answer has to show what it is.
const HEAD: usize = 1024;

/// Why an answer to a listing cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum NoListing {
    /// It is something else.
    #[error(
        "what answers is no listing: something else than a store is at the endpoint, or in front of it; check the endpoint and the network"
    )]
    Alien,
    /// It says that there is more, and not where.
    #[error(
        "the store says that the listing goes on and gives no token to go on with; use a store that lists as S3's ListObjectsV2 does"
    )]
    NoToken,
    /// It says to go on with the very token that it was asked with.
    #[error("the store gives the token of the page before: its listing repeats a page without end")]
    SameToken,
}

impl NoListing {
    /// What it means for whoever has to act on it.
    pub(crate) fn class(self) -> ErrorClass {
        match self {
            Self::Alien => ErrorClass::Unreachable,
            Self::NoToken | Self::SameToken => ErrorClass::UnsafeStore,
        }
    }

    /// The reason that stands somewhere below an error.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(link) = next {
            if let Some(found) = link.downcast_ref::<Self>() {
                return Some(*found);
            }
            next = link.source();
        }
        None
    }
}

/// A request for a page of keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PageRequest {
    /// Where the page begins, unless it is the first.
    token: Option<String>,
}

impl PageRequest {
    /// `None` for any other request.
    pub(super) fn read(uri: &Uri) -> Option<Self> {
        let query = uri.query().unwrap_or_default();
        if !query.split('&').any(|pair| pair == "list-type=2" || pair == "comp=list") {
            return None;
        }
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        let token = pairs.find(|(name, _)| name == "continuation-token" || name == "marker");
        Some(Self { token: token.map(|(_, token)| token.into_owned()).filter(|token| !token.is_empty()) })
    }
}

/// The same answer, held whole, if it is such a page. A body that breaks off is asked for again, as an answer that never came.
pub(super) async fn checked(request: &PageRequest, response: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (parts, body) = response.into_parts();
    let page = body.bytes().await.map_err(|error| match error.kind() {
        HttpErrorKind::Timeout => error,
        _ => HttpError::new(HttpErrorKind::Interrupted, error),
    })?;
    // Of this kind none is tried again.
    check(request, &page).map_err(|reason| HttpError::new(HttpErrorKind::Unknown, reason))?;
    Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(page)))
}

/// No key can forge an element: in a key `<` is escaped.
fn check(request: &PageRequest, page: &[u8]) -> Result<(), NoListing> {
    let head = page.get(..HEAD).unwrap_or(page);
    if find(head, b"<ListBucketResult").is_none() && find(head, b"<EnumerationResults").is_none() {
        return Err(NoListing::Alien);
    }
    match element(page, "NextContinuationToken").or_else(|| element(page, "NextMarker")) {
        Some(token) if Some(&token) == request.token.as_ref() => Err(NoListing::SameToken),
        // Where only a marker is given, nobody reads it but for Azure, which does not say whether there is more.
        _ if element(page, "IsTruncated").is_some_and(|truncated| truncated == "true")
            && element(page, "NextContinuationToken").is_none() =>
        {
            Err(NoListing::NoToken)
        }
        _ => Ok(()),
    }
}

fn find(within: &[u8], wanted: &[u8]) -> Option<usize> {
    within.windows(wanted.len()).position(|window| window == wanted)
}

/// The text of the first element of this name, unless it is empty.
fn element(page: &[u8], name: &str) -> Option<String> {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    let rest = page.get(find(page, start.as_bytes())? + start.len()..)?;
    let text = std::str::from_utf8(rest.get(..find(rest, end.as_bytes())?)?).ok()?;
    let plain = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    let text = plain.into_iter().fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain));
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_page_that_ends_or_says_where_it_goes_on_is_one() {
        let s3 = |inside: &str| {
            format!(
                "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{inside}</ListBucketResult>"
            )
        };
        let more = "<IsTruncated>true</IsTruncated>";
        for (page, found) in [
            (s3("<IsTruncated>false</IsTruncated>"), Ok(())),
            (s3(""), Ok(())),
            (s3(&format!("{more}<NextContinuationToken>a</NextContinuationToken>")), Ok(())),
            (s3(more), Err(NoListing::NoToken)),
            (s3(&format!("{more}<NextContinuationToken></NextContinuationToken>")), Err(NoListing::NoToken)),
            (s3(&format!("{more}<NextContinuationToken/>")), Err(NoListing::NoToken)),
            (s3(&format!("{more}<NextMarker>epoch=7/_COMMIT</NextMarker>")), Err(NoListing::NoToken)),
            (s3("<Key>&lt;IsTruncated&gt;true&lt;/IsTruncated&gt;</Key>"), Ok(())),
            ("\u{feff}<?xml version=\"1.0\"?><EnumerationResults><NextMarker /></EnumerationResults>".into(), Ok(())),
            ("<html><body>Please log in</body></html>".into(), Err(NoListing::Alien)),
            ("<Error><Code>SlowDown</Code></Error>".into(), Err(NoListing::Alien)),
            (String::new(), Err(NoListing::Alien)),
        ] {
            assert_eq!(check(&PageRequest { token: None }, page.as_bytes()), found, "{page}");
        }
    }

    #[test]
    fn a_page_that_leads_to_itself_is_none() {
        let s3 =
            "<ListBucketResult><NextContinuationToken>a&amp;b=</NextContinuationToken><IsTruncated>true</IsTruncated>";
        let azure = "<EnumerationResults><NextMarker>2!76</NextMarker>";
        for (uri, page, found) in [
            ("http://h/b?list-type=2&continuation-token=a%26b%3D", s3, Err(NoListing::SameToken)),
            ("http://h/b?list-type=2&continuation-token=a", s3, Ok(())),
            ("http://h/b?list-type=2", s3, Ok(())),
            ("http://h/c?restype=container&comp=list&marker=2%2176", azure, Err(NoListing::SameToken)),
            ("http://h/c?restype=container&comp=list&marker=2%2175", azure, Ok(())),
        ] {
            let request = PageRequest::read(&uri.parse().unwrap()).unwrap();
            assert_eq!(check(&request, page.as_bytes()), found, "{uri}");
        }
    }

    #[test]
    fn requests_for_keys_are_told_from_others() {
        for (uri, asks) in [
            ("http://h/b?list-type=2&prefix=state%2F", true),
            ("http://h/b?continuation-token=a&list-type=2", true),
            ("http://h/c?restype=container&comp=list", true),
            ("http://h/b?uploads", false),
            ("http://h/b/list-type=2", false),
            ("http://h/b?prefix=list-type%3D2", false),
        ] {
            assert_eq!(PageRequest::read(&uri.parse().unwrap()).is_some(), asks, "{uri}");
        }
    }
}

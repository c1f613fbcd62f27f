//! Single objects, asked for by name or given back by a write: within the limits of those that are cached.

use futures::{AsyncBufRead, AsyncBufReadExt};
use http::Request as HttpRequest;
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Client, Resource,
    api::{GetParams, Request},
};

use super::{Kept, Projection, TEXT_BYTES, Unreadable, read_only, skim};

/// An object, or why it cannot be read.
pub type Decoded<K> = Result<K, Box<Unreadable>>;

/// The version of an object, and its UID.
pub type Version = (String, String);

/// Where objects of a kind are.
#[must_use]
pub fn requests<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(namespace: Option<&str>) -> Request {
    Request::new(K::url_path(&(), namespace))
}

/// The object of this name, if there is one.
///
/// # Errors
/// When the API server gives none, for another reason than that.
pub async fn get<K: Kept + Resource<Scope = NamespaceResourceScope>>(
    client: &Client,
    namespace: &str,
    name: &str,
    keep: Projection,
) -> kube::Result<Option<Decoded<K>>> {
    let request = requests::<K>(Some(namespace)).get(name, &GetParams::default());
    found(send(client, request.map_err(kube::Error::BuildRequest)?, keep).await)
}

/// Its version alone, which is cheap whatever it holds.
///
/// # Errors
/// When the API server gives none, for another reason than that there is no such object.
pub async fn version<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(
    client: &Client,
    namespace: &str,
    name: &str,
) -> kube::Result<Option<Version>> {
    let request = requests::<K>(Some(namespace)).get_metadata(name, &GetParams::default());
    let text = found(text(client, request.map_err(kube::Error::BuildRequest)?).await)?;
    let identity = text.map(|text| skim::identity(&text));
    Ok(identity.and_then(|metadata| metadata.uid.zip(metadata.resource_version)))
}

/// Makes a request, and reads the object that is the answer.
///
/// # Errors
/// When the API server refuses, or does not answer.
pub async fn send<K: Kept>(
    client: &Client,
    request: HttpRequest<Vec<u8>>,
    keep: Projection,
) -> kube::Result<Decoded<K>> {
    let text = text(client, request).await?;
    Ok(read_only(&text, keep).map(|read| read.object))
}

/// Makes a request, and gives the text of the answer. What is longer than any object that is read is cut off.
///
/// # Errors
/// When the API server refuses, or does not answer.
pub async fn text(client: &Client, request: HttpRequest<Vec<u8>>) -> kube::Result<Vec<u8>> {
    let mut stream = std::pin::pin!(client.request_stream(request).await?);
    collect(&mut stream).await.map_err(kube::Error::ReadEvents)
}

async fn collect(stream: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    while text.len() <= TEXT_BYTES {
        let chunk = stream.fill_buf().await?;
        if chunk.is_empty() {
            break;
        }
        let taken = chunk.len().min(TEXT_BYTES + 1 - text.len());
        text.extend_from_slice(&chunk[..taken]);
        stream.consume_unpin(taken);
    }
    Ok(text)
}

fn found<T>(result: kube::Result<T>) -> kube::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

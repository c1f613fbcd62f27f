//! Reads single objects, by name or from the answer to a write, within the same limits as cached objects.

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

/// The UID and the resource version of an object.
pub type Version = (String, String);

/// Builds requests for objects of a kind.
pub fn requests<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(namespace: Option<&str>) -> Request {
    Request::new(K::url_path(&(), namespace))
}

/// Reads the object of this name; `None` if it does not exist.
///
/// # Errors
/// When the API server does not return the object, for any reason other than that it does not exist.
pub async fn get<K: Kept + Resource<Scope = NamespaceResourceScope>>(
    client: &Client,
    namespace: &str,
    name: &str,
    keep: Projection,
) -> kube::Result<Option<Decoded<K>>> {
    let request = requests::<K>(Some(namespace)).get(name, &GetParams::default());
    found(send(client, request.map_err(kube::Error::BuildRequest)?, keep).await)
}

/// Reads only the version of an object, which is cheap whatever the object's size; `None` if the object does not exist.
///
/// # Errors
/// When the API server does not return the object, for any reason other than that it does not exist.
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

/// Sends a request, and reads the object in the answer.
///
/// # Errors
/// When the API server refuses the request, or does not answer.
pub async fn send<K: Kept>(
    client: &Client,
    request: HttpRequest<Vec<u8>>,
    keep: Projection,
) -> kube::Result<Decoded<K>> {
    let text = text(client, request).await?;
    Ok(read_only(&text, keep).map(|read| read.object))
}

/// Sends a request, and returns the text of the answer. A text that is longer than any readable object is cut off.
///
/// # Errors
/// When the API server refuses the request, or does not answer.
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

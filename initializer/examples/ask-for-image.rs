//! Asks `initializer serve-images` for an image, as the agent of a guest does: to try a guest image without an agent.
//!
//! `ask-for-image SOCKET IMAGE BUNDLE` prints the digest, or why the image was not pulled; then the exit code is 1.

use std::{
    env,
    error::Error,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
};

use contrast_proto::{
    image_pull::{ImagePullRequest, ImagePullResponse},
    ttrpc::{Request, Response},
};
use contrast_ttrpc::{HEADER_BYTES, Header, Kind, MESSAGE_MAX, frame};
use prost::Message as _;

#[expect(clippy::print_stdout, reason = "an example has something to show")]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [socket, image, bundle] = arguments.as_slice() else {
        return Err("expected SOCKET IMAGE BUNDLE".into());
    };
    let request = ImagePullRequest {
        image_url: image.clone(),
        bundle_path: bundle.clone(),
    };
    let request = Request {
        service: "api.ImagePullService".to_owned(),
        method: "PullImage".to_owned(),
        payload: request.encode_to_vec().into(),
        ..Request::default()
    };
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(&frame(Kind::Request, 1, &request.encode_to_vec()))?;
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header)?;
    let header = Header::parse(&header);
    if header.length > MESSAGE_MAX {
        return Err(format!("the answer has {} bytes, which is no ttrpc", header.length).into());
    }
    let mut body = vec![0; usize::try_from(header.length)?];
    stream.read_exact(&mut body)?;
    let response = Response::decode(&*body)?;
    if let Some(status) = response.status.filter(|status| status.code != 0) {
        return Err(format!("code {}: {}", status.code, status.message).into());
    }
    let pulled = ImagePullResponse::decode(response.payload)?;
    println!("{}", pulled.manifest_digest);
    Ok(())
}

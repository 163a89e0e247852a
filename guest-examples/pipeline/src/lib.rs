//! Takes pictures over HTTP, and makes small ones of them in the background.
//!
//! One component with two handlers: `POST /images` takes a JPEG or a PNG, sends it
//! to the queue `images` and answers 202 with an id; the same function is fed by
//! that queue, makes a thumbnail and sends it to the queue `thumbnails`. So the
//! client does not wait for the work, and what was answered is done also if the
//! host is killed meanwhile.
//!
//! | request | answer |
//! |---|---|
//! | a picture | 202, `{"id":"…"}` |
//! | `?width=` that is no width | 400 |
//! | a picture larger than a message may be | 413 |
//! | other formats | 415 |
//! | a full queue | 503, with `retry-after` |
//!
//! The attributes of a thumbnail are `image`, the id that the client has, and
//! `content-type`. As delivery is at least once, a picture may have its thumbnail
//! sent twice: the same bytes under the same id.

mod thumbnail;

use dunlin_sdk::producer::{self, Outgoing, SendError};
use dunlin_sdk::{Context, Error, Failure, HttpError, IntoResponse, Message, Request, Response};
use image::{ImageError, ImageFormat};
use serde_json::json;

const IMAGES: &str = "images";
const THUMBNAILS: &str = "thumbnails";

const WIDTH: u32 = 200;
const MAX_WIDTH: u32 = 400;

/// What a client waits before it tries again, unless the queue says how long.
const RETRY_SECONDS: u64 = 1;

/// A decoder holds up to three copies of the pixels while it works (a
/// progressive JPEG does), and there must be room for the message beside them.
const SHARE_OF_MEMORY: u64 = 5;

#[dunlin_sdk::http]
fn upload(request: Request) -> Result<Response, Error> {
    let width = request.query_param_as("width")?.unwrap_or(WIDTH);
    if !(1..=MAX_WIDTH).contains(&width) {
        return Err(HttpError::bad_request(format!("`width` is 1 to {MAX_WIDTH}")).into());
    }
    if format(request.body()).is_none() {
        return Err(HttpError::new(415, "the body is neither JPEG nor PNG").into());
    }
    let image = Outgoing::new(request.into_body()).attribute("width", width.to_string());
    match producer::send(IMAGES, image) {
        Ok(id) => Ok(Response::json(&json!({ "id": id })).with_status(202)),
        Err(SendError::TooLarge(most)) => {
            let message = format!("a picture may have {most} bytes, less a few for its width");
            Err(HttpError::new(413, message).into())
        }
        Err(error) if error.is_temporary() => {
            // Whole seconds, and not 0.
            let wait = error
                .delay()
                .map_or(RETRY_SECONDS, |delay| delay.as_secs() + 1);
            Ok(HttpError::new(503, "too many pictures wait")
                .into_response()
                .with_header("retry-after", wait.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

#[dunlin_sdk::queue]
fn shrink(message: Message, context: Context) -> Result<(), Failure> {
    make_thumbnail(&message, context.memory_limit() / SHARE_OF_MEMORY)
}

fn make_thumbnail(message: &Message, max_bytes: u64) -> Result<(), Failure> {
    let format = format(&message.body).ok_or_else(|| Failure::reject("neither JPEG nor PNG"))?;
    let width = message
        .attribute("width")
        .and_then(|width| width.parse().ok())
        .filter(|width| (1..=MAX_WIDTH).contains(width))
        .unwrap_or(WIDTH);
    let thumbnail = thumbnail::of(&message.body, format, width, max_bytes).map_err(rejection)?;

    let thumbnail = Outgoing::new(thumbnail)
        .attribute("image", &message.id)
        .attribute("content-type", format.to_mime_type());
    match producer::send(THUMBNAILS, thumbnail) {
        Ok(_) => Ok(()),
        // The same picture makes the same thumbnail each time.
        Err(error @ SendError::TooLarge(_)) => Err(Failure::reject(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// The format that the first bytes give away, whatever the headers say.
fn format(image: &[u8]) -> Option<ImageFormat> {
    image::guess_format(image)
        .ok()
        .filter(|format| matches!(format, ImageFormat::Jpeg | ImageFormat::Png))
}

fn rejection(error: ImageError) -> Failure {
    Failure::reject(match error {
        ImageError::Limits(_) => "the picture is larger than this function's memory".to_owned(),
        error => format!("the picture cannot be read: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dunlin_sdk::producer::outbox::{self, Sent};
    use image::GenericImageView as _;

    use super::thumbnail::tests::picture;
    use super::*;

    const ENOUGH: u64 = 1 << 20;

    fn post(path: &str, body: &[u8]) -> Response {
        upload(Request::new("POST", path).with_body(body)).into_response()
    }

    /// The one message that was sent.
    fn sent() -> (String, Outgoing) {
        match outbox::take().as_slice() {
            [Sent::Message { queue, message }] => (queue.clone(), message.clone()),
            sent => panic!("one message, and not {sent:?}"),
        }
    }

    #[test]
    fn a_picture_is_accepted_and_its_thumbnail_follows() {
        let image = picture(400, 300, ImageFormat::Png);
        let response = post("/images?width=100", &image);
        assert_eq!(response.status().as_u16(), 202);
        assert_eq!(response.body(), br#"{"id":"sent-1"}"#);
        let (queue, message) = sent();
        assert_eq!((queue.as_str(), &message.body), (IMAGES, &image));

        let mut received = Message::new(message.body).with_id("sent-1");
        received.attributes = message.attributes;
        make_thumbnail(&received, ENOUGH).unwrap();
        let (queue, thumbnail) = sent();
        assert_eq!(queue, THUMBNAILS);
        let small = image::load_from_memory(&thumbnail.body).unwrap();
        assert_eq!(small.dimensions(), (100, 75));
        let expected = [("image", "sent-1"), ("content-type", "image/png")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(thumbnail.attributes, expected);
    }

    #[test]
    fn what_is_no_picture_is_refused_at_the_door() {
        let status = |path, body: &[u8]| post(path, body).status().as_u16();
        let image = picture(4, 3, ImageFormat::Jpeg);
        assert_eq!(status("/images", b""), 415);
        assert_eq!(status("/images", b"GIF89a"), 415);
        assert_eq!(status("/images?width=0", &image), 400);
        assert_eq!(status("/images?width=wide", &image), 400);
        assert_eq!(outbox::take(), []);
    }

    #[test]
    fn the_client_is_told_why_the_queue_did_not_take_a_picture() {
        let image = picture(4, 3, ImageFormat::Jpeg);
        let refused = |error| {
            outbox::refuse(error);
            let response = post("/images", &image);
            let wait = response.header("retry-after").map(str::to_owned);
            (response.status().as_u16(), wait)
        };
        assert_eq!(refused(SendError::TooLarge(1 << 18)), (413, None));
        let wait = Some(Duration::from_millis(2_500));
        assert_eq!(refused(SendError::Throttled(wait)), (503, Some("3".into())));
        assert_eq!(refused(SendError::Throttled(None)), (503, Some("1".into())));
        assert_eq!(refused(SendError::NotAllowed(IMAGES.into())), (500, None));
    }

    #[test]
    fn a_picture_that_cannot_be_read_is_rejected_and_a_full_queue_is_waited_for() {
        let image = picture(1000, 1000, ImageFormat::Png);
        let failure =
            |body: &[u8], max_bytes| make_thumbnail(&Message::new(body), max_bytes).unwrap_err();
        assert!(failure(b"GIF89a", ENOUGH).is_rejection());
        assert!(failure(&image[..40], 8 * ENOUGH).is_rejection());
        let too_large = failure(&image, ENOUGH);
        assert!(too_large.is_rejection());
        assert!(too_large.reason().unwrap().contains("memory"));

        outbox::refuse(SendError::TooLarge(1));
        assert!(failure(&image, 8 * ENOUGH).is_rejection());
        outbox::refuse(SendError::Unavailable("the disk is full".into()));
        assert!(!failure(&image, 8 * ENOUGH).is_rejection());
    }
}

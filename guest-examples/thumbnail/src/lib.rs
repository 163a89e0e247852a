//! Makes small pictures of large ones: `POST /thumbnail?width=200` takes a JPEG or
//! a PNG and answers the same in that width.
//!
//! The aspect ratio stays, and a picture is never enlarged. A JPEG is turned as
//! its camera was held. Wrong input is told as `{"error":"…"}`: 400 for a width
//! that is none, 415 for other formats, 422 for pictures that
//! cannot be decoded (of a JPEG that breaks off, the rest is grey), or are larger than
//! the function's memory can hold.

use std::io::Cursor;

use dunlin_sdk::{Context, HttpError, Request, Response, StatusCode, metrics};
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

const MAX_WIDTH: u32 = 2048;

/// A decoder holds up to three copies of the pixels while it works (a
/// progressive JPEG does), and there must be room for the request beside them.
const SHARE_OF_MEMORY: u64 = 5;

#[dunlin_sdk::http]
fn handle(request: Request, context: Context) -> Result<Response, HttpError> {
    let width = request
        .query_param_as("width")?
        .filter(|width| (1..=MAX_WIDTH).contains(width))
        .ok_or_else(|| {
            HttpError::bad_request(format!("say how wide, 1 to {MAX_WIDTH}: ?width=200"))
        })?;
    let format = format(request.body())?;
    let max_bytes = context.memory_limit() / SHARE_OF_MEMORY;
    let thumbnail = thumbnail(request.body(), format, width, max_bytes).map_err(refusal)?;

    let content_type = format.to_mime_type();
    metrics::counter("thumbnails")
        .label("format", content_type)
        .add(1.0);
    Ok(Response::new(StatusCode::OK)
        .with_header("content-type", content_type)
        .with_body(thumbnail))
}

/// The format that the first bytes give away, whatever the headers say.
fn format(image: &[u8]) -> Result<ImageFormat, HttpError> {
    image::guess_format(image)
        .ok()
        .filter(|format| matches!(format, ImageFormat::Jpeg | ImageFormat::Png))
        .ok_or_else(|| {
            HttpError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body is neither JPEG nor PNG",
            )
        })
}

fn thumbnail(
    image: &[u8],
    format: ImageFormat,
    width: u32,
    max_bytes: u64,
) -> Result<Vec<u8>, ImageError> {
    let image = decode(image, format, max_bytes)?;
    let width = width.min(image.width());
    let mut thumbnail = Cursor::new(Vec::new());
    image
        .thumbnail(width, u32::MAX)
        .write_to(&mut thumbnail, format)?;
    Ok(thumbnail.into_inner())
}

/// Decodes at most `max_bytes` of pixels: a few kilobytes of PNG may claim to be
/// gigabytes.
fn decode(image: &[u8], format: ImageFormat, max_bytes: u64) -> Result<DynamicImage, ImageError> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(max_bytes);
    let mut reader = ImageReader::with_format(Cursor::new(image), format);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    limits.reserve(decoder.total_bytes())?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

fn refusal(error: ImageError) -> HttpError {
    HttpError::unprocessable(match error {
        ImageError::Limits(_) => "the picture is larger than this function's memory".to_owned(),
        error => format!("the picture cannot be read: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use image::{GenericImageView, RgbImage};

    use super::*;

    const ENOUGH: u64 = 1 << 20;

    fn picture(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::from(RgbImage::new(width, height))
            .write_to(&mut bytes, format)
            .unwrap();
        bytes.into_inner()
    }

    #[test]
    fn the_format_and_the_aspect_ratio_stay() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png] {
            let large = picture(400, 300, format);
            let small = thumbnail(&large, format, 200, ENOUGH).unwrap();
            assert_eq!(image::guess_format(&small).unwrap(), format);
            let small = image::load_from_memory(&small).unwrap();
            assert_eq!(small.dimensions(), (200, 150));
        }
    }

    #[test]
    fn a_picture_is_never_enlarged() {
        let tiny = picture(4, 3, ImageFormat::Png);
        let same = thumbnail(&tiny, ImageFormat::Png, 200, ENOUGH).unwrap();
        assert_eq!(image::load_from_memory(&same).unwrap().dimensions(), (4, 3));
    }

    #[test]
    fn a_picture_that_is_too_large_or_damaged_is_refused() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png] {
            let large = picture(1000, 1000, format);
            let too_large = thumbnail(&large, format, 200, ENOUGH).map_err(refusal);
            let message = "the picture is larger than this function's memory";
            assert_eq!(too_large, Err(HttpError::unprocessable(message)));

            let damaged = thumbnail(&large[..40], format, 200, 8 * ENOUGH).map_err(refusal);
            assert_eq!(damaged.unwrap_err().status().as_u16(), 422);
        }
    }

    #[test]
    fn other_input_is_refused() {
        let status = |path, body: &[u8]| {
            let request = Request::new("POST", path).with_body(body);
            handle(request, Context::current()).map_err(|error| error.status().as_u16())
        };
        assert_eq!(status("/thumbnail", b""), Err(400));
        assert_eq!(status("/thumbnail?width=0", b""), Err(400));
        assert_eq!(status("/thumbnail?width=wide", b""), Err(400));
        assert_eq!(status("/thumbnail?width=200", b"GIF89a"), Err(415));
    }
}

package dev.edgecv.core

/** How the part that a model takes is cut from a photo. */
enum class Rule { CROP_THEN_RESIZE, RESIZE_THEN_CROP, STRETCH }

/**
 * Crop, resize and input range: how an upright photo of any size becomes a model's input. The value is the one in the
 * model's record, which calibration and evaluation used too.
 *
 * @property height height of the result, in pixels.
 * @property resizeTo length of the result's shorter side before a central part of it is cropped, in pixels; null is that
 *     side itself.
 * @property mean per channel; the model's input is `(pixel - mean) / std`, pixel in 0..255.
 * @property width width of the result, in pixels.
 * @property channels 3 for RGB, 1 for grey.
 */
data class Preprocessing(
    val height: Int,
    val resizeTo: Int? = null,
    val rule: Rule = Rule.CROP_THEN_RESIZE,
    val interpolation: Interpolation = Interpolation.BICUBIC,
    val mean: List<Float>? = null,
    val std: List<Float>? = null,
    val width: Int = height,
    val channels: Int = 3,
) {
    init {
        if (height !in 1..MAX_IMAGE_SIZE || width !in 1..MAX_IMAGE_SIZE) {
            throw InputError("The model's height and width must be 1 to $MAX_IMAGE_SIZE pixels. Received: $height x $width")
        }
        if (channels != 1 && channels != 3) throw InputError("The model's channels must be 1 or 3. Received: $channels")
        if (enlarged < shorter || enlarged > MAX_ENLARGEMENT * shorter) {
            throw InputError(
                "The model's resize_to must be 1 to $MAX_ENLARGEMENT times its shorter side, $shorter. Received: $resizeTo",
            )
        }
        val wrong = listOfNotNull(mean, std).any { values -> values.size != channels || values.any { !it.isFinite() } }
        if (wrong || std.orEmpty().any { it <= 0 }) {
            throw InputError("The model's mean must be a finite number per channel and std one above 0. Received: $mean, $std")
        }
    }

    private val shorter get() = minOf(height, width)
    private val enlarged get() = resizeTo ?: shorter

    /** Whether the model takes pixels 0..255 without normalization. */
    val takesPixels get() = mean.orEmpty().all { it == 0f } && std.orEmpty().all { it == 1f }

    /** The model's input for a value 0..255 of a channel. */
    fun toInput(pixel: Int, channel: Int): Float =
        if (takesPixels) pixel.toFloat() else (pixel - (mean?.get(channel) ?: 0f)) / (std?.get(channel) ?: 1f)

    /** The cropped and resized photo, [height] and [width] pixels large. */
    fun cropAndResize(photo: Photo): Photo = when (rule) {
        Rule.CROP_THEN_RESIZE -> {
            val (tall, wide) = centralPart(photo)
            photo.crop((photo.width - wide + 1) / 2, (photo.height - tall + 1) / 2, wide, tall).resize(width, height, interpolation)
        }
        Rule.RESIZE_THEN_CROP -> {
            val aspect = (maxOf(height, width) + shorter - 1) / shorter
            val cut = photo.shortened(LONGEST_ASPECT.toLong() * minOf(photo.width, photo.height) * aspect)
            val (tall, wide) = resizedSides(cut)
            cut.resize(wide, tall, interpolation).crop(halfToEven(wide - width), halfToEven(tall - height), width, height)
        }
        Rule.STRETCH -> photo.resize(width, height, interpolation)
    }

    private fun isWider(photo: Photo) = photo.width.toLong() * height >= photo.height.toLong() * width

    /** Height and width of the part of a photo that becomes the result. */
    private fun centralPart(photo: Photo): Pair<Int, Int> {
        val sides = if (isWider(photo)) {
            photo.height.toLong() * shorter / enlarged to photo.height.toLong() * width * shorter / (height.toLong() * enlarged)
        } else {
            photo.width.toLong() * height * shorter / (width.toLong() * enlarged) to photo.width.toLong() * shorter / enlarged
        }
        return sides.first.toInt().coerceAtLeast(1) to sides.second.toInt().coerceAtLeast(1)
    }

    /** Height and width to which a photo is resized before the result is cropped from it. */
    private fun resizedSides(photo: Photo): Pair<Int, Int> {
        val sides = if (isWider(photo)) {
            height.toLong() * enlarged / shorter to photo.width.toLong() * height * enlarged / (photo.height.toLong() * shorter)
        } else {
            photo.height.toLong() * width * enlarged / (photo.width.toLong() * shorter) to width.toLong() * enlarged / shorter
        }
        return sides.first.toInt().coerceAtLeast(height) to sides.second.toInt().coerceAtLeast(width)
    }

    companion object {
        const val MAX_IMAGE_SIZE = 4096
        const val MAX_ENLARGEMENT = 16

        // A longer photo is cropped first: the result does not depend on its ends, and resizing a strip would make it
        // hundreds of times larger.
        private const val LONGEST_ASPECT = 16

        private fun Photo.shortened(longest: Long): Photo {
            if (maxOf(width, height) <= longest) return this
            val newWidth = minOf(width.toLong(), longest).toInt()
            val newHeight = minOf(height.toLong(), longest).toInt()
            return crop((width - newWidth) / 2, (height - newHeight) / 2, newWidth, newHeight)
        }

        private fun halfToEven(number: Int) = Math.rint(number / 2.0).toInt()
    }
}

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
        if (height !in 1..MAX_SIDE || width !in 1..MAX_SIDE) {
            throw InputError("The model's height and width must be 1 to $MAX_SIDE pixels. Received: $height x $width")
        }
        if (channels != 1 && channels != 3) throw InputError("The model's channels must be 1 or 3. Received: $channels")
        if (enlarged !in shorter..MAX_SIDE) {
            throw InputError("The model's resize_to must be from its shorter side, $shorter, to $MAX_SIDE. Received: $resizeTo")
        }
        val wrong = listOfNotNull(mean, std).any { values -> values.size != channels }
        if (wrong || mean.orEmpty().any { !(kotlin.math.abs(it) <= MAX_STD) } || std.orEmpty().any { it !in MIN_STD..MAX_STD }) {
            throw InputError(
                "The model's mean must be a number per channel, and std one above 0, both at most $MAX_STD. Received: $mean, $std",
            )
        }
    }

    private val shorter get() = minOf(height, width)
    private val enlarged get() = resizeTo ?: shorter

    /** Whether the model takes pixels 0..255 without normalization. */
    val takesPixels get() = mean.orEmpty().all { it == 0f } && std.orEmpty().all { it == 1f }

    /** The model's input for a value 0..255 of a channel. */
    fun toInput(pixel: Int, channel: Int): Float =
        if (takesPixels) pixel.toFloat() else (pixel - (mean?.get(channel) ?: 0f)) / (std?.get(channel) ?: 1f)

    /** The cropped and resized picture, [height] and [width] pixels large. */
    fun cropAndResize(picture: Picture): Photo = Cropper(this).cropAndResize(picture)

    /** Which part of a picture is resized to which size, and which part of that is the result. */
    internal fun cut(pictureWidth: Int, pictureHeight: Int): Cut {
        val picture = Sides(pictureWidth, pictureHeight)
        return when (rule) {
            Rule.CROP_THEN_RESIZE -> {
                val part = centralPart(picture)
                Cut((picture.width - part.width + 1) / 2, (picture.height - part.height + 1) / 2, part, Sides(width, height), 0, 0)
            }
            Rule.RESIZE_THEN_CROP -> {
                val aspect = (maxOf(height, width) + shorter - 1) / shorter
                val longest = LONGEST_ASPECT.toLong() * minOf(picture.width, picture.height) * aspect
                val part = Sides(minOf(picture.width.toLong(), longest).toInt(), minOf(picture.height.toLong(), longest).toInt())
                val whole = resizedSides(part)
                Cut(
                    (picture.width - part.width) / 2, (picture.height - part.height) / 2, part,
                    whole, halfToEven(whole.width - width), halfToEven(whole.height - height),
                )
            }
            Rule.STRETCH -> Cut(0, 0, picture, Sides(width, height), 0, 0)
        }
    }

    private fun isWider(picture: Sides) = picture.width.toLong() * height >= picture.height.toLong() * width

    /** The part of a picture that becomes the result. */
    private fun centralPart(picture: Sides): Sides {
        val (tall, wide) = if (isWider(picture)) {
            picture.height.toLong() * shorter / enlarged to picture.height.toLong() * width * shorter / (height.toLong() * enlarged)
        } else {
            picture.width.toLong() * height * shorter / (width.toLong() * enlarged) to picture.width.toLong() * shorter / enlarged
        }
        return Sides(wide.toInt().coerceAtLeast(1), tall.toInt().coerceAtLeast(1))
    }

    /** The size to which a picture is resized before the result is cropped from it. */
    private fun resizedSides(picture: Sides): Sides {
        val (tall, wide) = if (isWider(picture)) {
            height.toLong() * enlarged / shorter to picture.width.toLong() * height * enlarged / (picture.height.toLong() * shorter)
        } else {
            picture.height.toLong() * width * enlarged / (picture.width.toLong() * shorter) to width.toLong() * enlarged / shorter
        }
        return Sides(wide.toInt().coerceAtLeast(width), tall.toInt().coerceAtLeast(height))
    }

    companion object {
        // The limits of converters/images/preprocessing.py.
        const val MAX_SIDE = 8192
        private const val MIN_STD = 1e-9f
        private const val MAX_STD = 1e9f

        // A longer picture is cropped first: the result does not depend on its ends.
        private const val LONGEST_ASPECT = 16

        private fun halfToEven(number: Int) = Math.rint(number / 2.0).toInt()
    }
}

internal data class Sides(val width: Int, val height: Int)

/**
 * The rectangle [part] of a picture, from [left] and [top], resized to the size [whole]; the result begins at [x] and [y] of
 * that.
 */
internal class Cut(val left: Int, val top: Int, val part: Sides, val whole: Sides, val x: Int, val y: Int)

/**
 * Crops and resizes pictures for one model, equal bit for bit to Pillow. Only the pixels that the result needs are read, and
 * the buffers are reused: a picture of the same size as the one before allocates nothing.
 */
class Cropper(private val preprocessing: Preprocessing) {
    private val result = Photo(preprocessing.width, preprocessing.height, ByteArray(3 * preprocessing.width * preprocessing.height))
    private var planned: Plan? = null
    private var pixels = ByteArray(0)
    private var between = ByteArray(0)
    private var sums = IntArray(0)

    private class Plan(val width: Int, val height: Int, val cut: Cut, val columns: Axis, val rows: Axis)

    /** The cropped and resized picture; the next call overwrites it. */
    fun cropAndResize(picture: Picture): Photo {
        val plan = planned?.takeIf { it.width == picture.width && it.height == picture.height } ?: plan(picture).also { planned = it }
        val (cut, columns, rows) = Triple(plan.cut, plan.columns, plan.rows)
        pixels = pixels.atLeast(3L * columns.length * rows.length)
        picture.copy(cut.left + columns.begin, cut.top + rows.begin, columns.length, rows.length, pixels)
        // Pillow runs the pass first that saves more work. Both passes round, so the order changes the result.
        val rowsLost = cut.part.height - cut.whole.height
        val rowsFirst = rowsLost > 0 && rowsLost > 2 * (cut.part.width - cut.whole.width)
        val wide = if (rowsFirst) columns.length else columns.count
        if (sums.size < 3 * wide) sums = IntArray(3 * wide)
        if (rowsFirst) {
            between = between.atLeast(3L * columns.length * rows.count)
            resizeRows(pixels, columns.length, rows, sums, between)
            resizeColumns(between, rows.count, columns, result.rgb)
        } else {
            between = between.atLeast(3L * columns.count * rows.length)
            resizeColumns(pixels, rows.length, columns, between)
            resizeRows(between, columns.count, rows, sums, result.rgb)
        }
        return result
    }

    private fun plan(picture: Picture): Plan {
        val cut = preprocessing.cut(picture.width, picture.height)
        val interpolation = preprocessing.interpolation
        val columns = Axis.of(cut.part.width, cut.whole.width, interpolation, cut.x, preprocessing.width)
        val rows = Axis.of(cut.part.height, cut.whole.height, interpolation, cut.y, preprocessing.height)
        return Plan(picture.width, picture.height, cut, columns, rows)
    }

    private fun ByteArray.atLeast(count: Long): ByteArray = when {
        count > Int.MAX_VALUE - 8 -> throw InputError("The picture is too large for this model's preprocessing.")
        size >= count -> this
        else -> ByteArray(count.toInt())
    }
}

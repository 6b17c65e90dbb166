package dev.edgecv.core

/**
 * One plane of a YUV_420_888 image, as in android.media.Image.
 *
 * @property rowStride bytes from one row to the next.
 * @property pixelStride bytes from one value to the next in a row; 2 if two planes are interleaved.
 */
class Plane(val bytes: ByteArray, val rowStride: Int, val pixelStride: Int)

/**
 * A camera frame as an upright picture. It is converted to RGB and rotated when it is read, and only where it is read.
 *
 * @param frameWidth width of the planes, before the rotation. Luma has this size, and chroma (JFIF's YCbCr, full range) half
 *     of it, rounded up.
 * @param degrees 0, 90, 180 or 270: the clockwise rotation that makes the picture upright.
 */
class CameraFrame(
    private val frameWidth: Int,
    private val frameHeight: Int,
    private val y: Plane,
    private val u: Plane,
    private val v: Plane,
    private val degrees: Int,
) : Picture {
    override val width = if (degrees % 180 == 0) frameWidth else frameHeight
    override val height = if (degrees % 180 == 0) frameHeight else frameWidth

    override fun copy(left: Int, top: Int, width: Int, height: Int, rgb: ByteArray) {
        // the same rectangle in the frame, and where a step to the right and a step down in the frame lead to in the result
        val stride = 3 * width
        when (degrees) {
            90 -> convert(top, frameHeight - left - width, height, width, rgb, stride - 3, stride, -3)
            180 -> convert(frameWidth - left - width, frameHeight - top - height, width, height, rgb, stride * height - 3, -3, -stride)
            270 -> convert(frameWidth - top - height, left, height, width, rgb, stride * (height - 1), -stride, 3)
            else -> convert(left, top, width, height, rgb, 0, 3, stride)
        }
    }

    /** Converts a rectangle of the frame; its first pixel goes to [start], and the others by [right] and [down] bytes. */
    private fun convert(
        left: Int, top: Int, columns: Int, rows: Int, rgb: ByteArray, start: Int, right: Int, down: Int,
    ) {
        val luma = y.bytes
        val blues = u.bytes
        val reds = v.bytes
        for (row in 0 until rows) {
            var at = (top + row) * y.rowStride + left * y.pixelStride
            val blueRow = (top + row) / 2 * u.rowStride
            val redRow = (top + row) / 2 * v.rowStride
            var to = start + row * down
            var red = 0
            var green = 0
            var blue = 0
            for (column in left until left + columns) {
                if (column == left || column and 1 == 0) { // two columns share their chroma
                    val cb = blues[blueRow + column / 2 * u.pixelStride].toInt() and 255
                    val cr = reds[redRow + column / 2 * v.pixelStride].toInt() and 255
                    red = CLIP_ZERO + (RED_OF_CR[cr] shr SCALE)
                    green = CLIP_ZERO + (GREEN_OF_CB[cb] + GREEN_OF_CR[cr] shr SCALE)
                    blue = CLIP_ZERO + (BLUE_OF_CB[cb] shr SCALE)
                }
                val light = luma[at].toInt() and 255
                rgb[to] = CLIPPED[light + red]
                rgb[to + 1] = CLIPPED[light + green]
                rgb[to + 2] = CLIPPED[light + blue]
                at += y.pixelStride
                to += right
            }
        }
    }

    companion object {
        /**
         * The clockwise rotation in degrees that makes the sensor's picture upright on the display.
         *
         * @param sensor the sensor's orientation in degrees, from the camera's characteristics.
         * @param display the display's rotation in degrees: 0, 90, 180 or 270.
         * @param facesUser whether the camera faces the user.
         */
        fun degreesUpright(sensor: Int, display: Int, facesUser: Boolean): Int =
            (if (facesUser) sensor + display else sensor - display + 360) % 360

        /**
         * The smallest size whose short side is at least [shortSide] pixels, or the largest size if there is none.
         *
         * @param sizes pairs of width and height, at least one.
         */
        fun chooseSize(sizes: List<Pair<Int, Int>>, shortSide: Int): Pair<Int, Int> =
            sizes.filter { minOf(it.first, it.second) >= shortSide }.minByOrNull(::pixels) ?: sizes.maxBy(::pixels)

        /**
         * The size of the preview: the smallest of the frames' proportions whose short side is at least [shortSide] pixels, or the
         * largest of these proportions; the frames' own size if there is none.
         */
        fun choosePreview(sizes: List<Pair<Int, Int>>, frames: Pair<Int, Int>, shortSide: Int): Pair<Int, Int> {
            val alike = sizes.filter { it.first.toLong() * frames.second == it.second.toLong() * frames.first }
            return if (alike.isEmpty()) frames else chooseSize(alike, shortSide)
        }

        private fun pixels(size: Pair<Int, Int>) = size.first.toLong() * size.second

        // ITU-R BT.601 as in JFIF 1.02, in fixed point with six fractional bits and Pillow's rounding.
        private const val SCALE = 6
        private val RED_OF_CR = table(1.402)
        private val GREEN_OF_CB = table(-0.34414)
        private val GREEN_OF_CR = table(-0.71414)
        private val BLUE_OF_CB = table(1.772)

        private fun table(factor: Double) = IntArray(256) { ((it - 128) * factor * (1 shl SCALE) + 0.5).toInt() }

        // a table, because branches on noisy pixels are slow; chroma adds -227 to 226
        private const val CLIP_ZERO = 256
        private val CLIPPED = ByteArray(3 * 256) { (it - CLIP_ZERO).coerceIn(0, 255).toByte() }
    }
}

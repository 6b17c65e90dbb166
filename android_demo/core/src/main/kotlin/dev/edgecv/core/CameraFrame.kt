package dev.edgecv.core

import java.nio.ByteBuffer

/**
 * One plane of a YUV_420_888 image, as in android.media.Image.
 *
 * @property rowStride bytes from one row to the next.
 * @property pixelStride bytes from one value to the next in a row; 2 if two planes are interleaved.
 */
class Plane(val bytes: ByteBuffer, val rowStride: Int, val pixelStride: Int)

/** A camera frame: luma of [width] x [height], and chroma (JFIF's YCbCr, full range) of half that size, rounded up. */
class CameraFrame(val width: Int, val height: Int, val y: Plane, val u: Plane, val v: Plane) {
    /**
     * Converts the frame to RGB and rotates it clockwise.
     *
     * @param degrees 0, 90, 180 or 270: the rotation that makes the picture upright.
     */
    fun toPhoto(degrees: Int): Photo {
        val rgb = ByteArray(3 * width * height)
        var to = 0
        for (row in 0 until height) {
            for (column in 0 until width) {
                val luma = y.at(column, row)
                val cb = u.at(column / 2, row / 2)
                val cr = v.at(column / 2, row / 2)
                rgb[to] = clip(luma + (RED_OF_CR[cr] shr SCALE))
                rgb[to + 1] = clip(luma + (GREEN_OF_CB[cb] + GREEN_OF_CR[cr] shr SCALE))
                rgb[to + 2] = clip(luma + (BLUE_OF_CB[cb] shr SCALE))
                to += 3
            }
        }
        val orientation = when (degrees) { 90 -> 6; 180 -> 3; 270 -> 8; else -> 1 }
        return Photo(width, height, rgb).upright(orientation)
    }

    private fun Plane.at(column: Int, row: Int) = bytes.get(row * rowStride + column * pixelStride).toInt() and 255

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
        fun chooseSize(sizes: List<Pair<Int, Int>>, shortSide: Int): Pair<Int, Int> {
            fun pixels(size: Pair<Int, Int>) = size.first.toLong() * size.second
            return sizes.filter { minOf(it.first, it.second) >= shortSide }.minByOrNull(::pixels) ?: sizes.maxBy(::pixels)
        }

        // ITU-R BT.601 as in JFIF 1.02, in fixed point with six fractional bits and Pillow's rounding.
        private const val SCALE = 6
        private val RED_OF_CR = table(1.402)
        private val GREEN_OF_CB = table(-0.34414)
        private val GREEN_OF_CR = table(-0.71414)
        private val BLUE_OF_CB = table(1.772)

        private fun table(factor: Double) = IntArray(256) { ((it - 128) * factor * (1 shl SCALE) + 0.5).toInt() }

        private fun clip(value: Int) = value.coerceIn(0, 255).toByte()
    }
}

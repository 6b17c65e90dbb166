package dev.edgecv.core

import kotlin.math.ceil

/** Conversion, rotation, crop and resize in whole, separate steps, as the oracle of the path that reads only what it needs. */
object Reference {
    /** The whole frame as RGB, rotated clockwise. */
    fun photo(width: Int, height: Int, y: Plane, u: Plane, v: Plane, degrees: Int): Photo {
        val rgb = ByteArray(3 * width * height)
        var to = 0
        for (row in 0 until height) {
            for (column in 0 until width) {
                val luma = y.at(column, row)
                val cb = u.at(column / 2, row / 2)
                val cr = v.at(column / 2, row / 2)
                rgb[to++] = clip(luma + (RED[cr] shr 6))
                rgb[to++] = clip(luma + (GREEN_OF_CB[cb] + GREEN_OF_CR[cr] shr 6))
                rgb[to++] = clip(luma + (BLUE[cb] shr 6))
            }
        }
        return Photo(width, height, rgb).upright(when (degrees) { 90 -> 6; 180 -> 3; 270 -> 8; else -> 1 })
    }

    private fun Plane.at(column: Int, row: Int) = bytes[row * rowStride + column * pixelStride].toInt() and 255

    private fun clip(value: Int) = value.coerceIn(0, 255).toByte()

    private fun table(factor: Double) = IntArray(256) { ((it - 128) * factor * 64 + 0.5).toInt() }

    private val RED = table(1.402)
    private val GREEN_OF_CB = table(-0.34414)
    private val GREEN_OF_CR = table(-0.71414)
    private val BLUE = table(1.772)

    fun crop(photo: Picture, left: Int, top: Int, width: Int, height: Int) =
        Photo(width, height, ByteArray(3 * width * height).also { photo.copy(left, top, width, height, it) })

    /** Resized with a filter, columns first unless rows save more work. */
    fun resize(photo: Photo, width: Int, height: Int, interpolation: Interpolation): Photo {
        val rowsLost = photo.height - height
        val rowsFirst = rowsLost > 0 && rowsLost > 2 * (photo.width - width)
        return if (rowsFirst) columns(rows(photo, height, interpolation), width, interpolation)
        else rows(columns(photo, width, interpolation), height, interpolation)
    }

    private class Weights(val first: IntArray, val values: Array<IntArray>)

    private fun weights(size: Int, newSize: Int, interpolation: Interpolation): Weights {
        val scale = size.toDouble() / newSize
        val filterScale = maxOf(scale, 1.0)
        val reach = interpolation.reach * filterScale
        val first = IntArray(newSize)
        val real = DoubleArray(ceil(reach).toInt() * 2 + 1)
        val values = Array(newSize) { at ->
            val centre = (at + 0.5) * scale
            val begin = (centre - reach + 0.5).toInt().coerceAtLeast(0)
            val end = (centre + reach + 0.5).toInt().coerceAtMost(size)
            var sum = 0.0
            for (i in begin until end) {
                real[i - begin] = interpolation.weight((i - centre + 0.5) * (1.0 / filterScale))
                sum += real[i - begin]
            }
            first[at] = begin
            IntArray(end - begin) { i ->
                val scaled = real[i] / sum * (1 shl 22)
                (if (scaled < 0) scaled - 0.5 else scaled + 0.5).toInt()
            }
        }
        return Weights(first, values)
    }

    private fun clipped(sum: Int): Byte = (sum shr 22).coerceIn(0, 255).toByte()

    private fun columns(photo: Photo, width: Int, interpolation: Interpolation): Photo {
        if (width == photo.width) return photo
        val weights = weights(photo.width, width, interpolation)
        val result = ByteArray(3 * width * photo.height)
        var to = 0
        for (y in 0 until photo.height) {
            for (x in 0 until width) {
                var from = 3 * (y * photo.width + weights.first[x])
                var red = 1 shl 21
                var green = 1 shl 21
                var blue = 1 shl 21
                for (weight in weights.values[x]) {
                    red += (photo.rgb[from].toInt() and 255) * weight
                    green += (photo.rgb[from + 1].toInt() and 255) * weight
                    blue += (photo.rgb[from + 2].toInt() and 255) * weight
                    from += 3
                }
                result[to] = clipped(red)
                result[to + 1] = clipped(green)
                result[to + 2] = clipped(blue)
                to += 3
            }
        }
        return Photo(width, photo.height, result)
    }

    private fun rows(photo: Photo, height: Int, interpolation: Interpolation): Photo {
        if (height == photo.height) return photo
        val weights = weights(photo.height, height, interpolation)
        val stride = 3 * photo.width
        val result = ByteArray(stride * height)
        val sums = IntArray(stride)
        for (y in 0 until height) {
            sums.fill(1 shl 21)
            var from = weights.first[y] * stride
            for (weight in weights.values[y]) {
                for (x in 0 until stride) sums[x] += (photo.rgb[from + x].toInt() and 255) * weight
                from += stride
            }
            for (x in 0 until stride) result[y * stride + x] = clipped(sums[x])
        }
        return Photo(photo.width, height, result)
    }
}

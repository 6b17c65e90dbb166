package dev.edgecv.core

import java.nio.ByteBuffer
import java.nio.ByteOrder

enum class Type(val bytes: Int) { FLOAT32(4), INT8(1), UINT8(1) }

/**
 * The input or output tensor of an open model.
 *
 * @property scale real value = scale * (stored - zeroPoint); 0 if the tensor is not quantized.
 */
data class Tensor(val shape: List<Int>, val type: Type, val scale: Float, val zeroPoint: Int) {
    val size: Int get() = shape.fold(1) { product, n -> product * n }
    val bytes: Int get() = size * type.bytes

    fun buffer(): ByteBuffer = ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder())

    /** The stored values of a full buffer; integers are not dequantized. */
    fun stored(buffer: ByteBuffer): List<Number> = List(size) { i ->
        when (type) {
            Type.FLOAT32 -> buffer.getFloat(4 * i)
            Type.INT8 -> buffer.get(i).toInt()
            Type.UINT8 -> buffer.get(i).toInt() and 255
        }
    }

    /** The dequantized values of a full buffer. */
    fun values(buffer: ByteBuffer): FloatArray {
        val stored = stored(buffer)
        return FloatArray(size) { i -> if (scale == 0f) stored[i].toFloat() else scale * (stored[i].toFloat() - zeroPoint) }
    }
}

/**
 * Writes pixels into a model's input tensor, normalized and quantized.
 *
 * @param pixelOffset the tensor's integer is pixel + pixelOffset; null if the value is normalized and quantized by the
 *     tensor's scale and zero point instead.
 */
class InputWriter(private val tensor: Tensor, preprocessing: Preprocessing, private val pixelOffset: Int?) {
    // lookup tables: a channel has only 256 values
    private val channels = preprocessing.channels
    private val floats = Array(channels) { c -> FloatArray(256) { pixel -> preprocessing.toInput(pixel, c) } }
    private val integers = Array(channels) { c -> ByteArray(256) { pixel -> quantized(pixel, floats[c][pixel]) } }

    private fun quantized(pixel: Int, value: Float): Byte {
        val number = when {
            pixelOffset != null -> (pixel + pixelOffset).toDouble()
            tensor.scale != 0f -> Math.rint((value / tensor.scale).toDouble()) + tensor.zeroPoint
            else -> value.toDouble()
        }
        val (least, most) = if (tensor.type == Type.UINT8) 0.0 to 255.0 else -128.0 to 127.0
        return number.coerceIn(least, most).toInt().toByte()
    }

    /** Fills the input [buffer] with a photo of the model's size, in grey for one channel. */
    fun write(photo: Photo, buffer: ByteBuffer) {
        val pixels = if (channels == 1) photo.luma() else photo.rgb
        require(pixels.size == tensor.size) { "${photo.width} x ${photo.height} for ${tensor.shape}" }
        buffer.rewind()
        if (tensor.type == Type.FLOAT32) {
            val view = buffer.asFloatBuffer()
            for (i in pixels.indices) view.put(i, floats[i % channels][pixels[i].toInt() and 255])
        } else {
            for (i in pixels.indices) buffer.put(i, integers[i % channels][pixels[i].toInt() and 255])
        }
    }
}

package dev.edgecv.core

import java.nio.ByteBuffer
import java.nio.ByteOrder

enum class Type(val bytes: Int, internal val range: ClosedFloatingPointRange<Double> = 0.0..0.0) {
    FLOAT32(4),
    INT8(1, -128.0..127.0),
    UINT8(1, 0.0..255.0),
    INT16(2, -32768.0..32767.0),
}

/**
 * The input or output tensor of an open model.
 *
 * @property scale real value = scale * (stored - zeroPoint); 0 if the tensor is not quantized.
 */
data class Tensor(val shape: List<Int>, val type: Type, val scale: Float, val zeroPoint: Int) {
    val size: Int get() = shape.fold(1) { product, n -> product * n }
    val bytes: Int get() = size * type.bytes

    fun buffer(): ByteBuffer = ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder())

    /** The stored value at a place of a full buffer; integers are not dequantized. */
    private fun stored(buffer: ByteBuffer, at: Int): Float = when (type) {
        Type.FLOAT32 -> buffer.getFloat(4 * at)
        Type.INT8 -> buffer.get(at).toFloat()
        Type.UINT8 -> (buffer.get(at).toInt() and 255).toFloat()
        Type.INT16 -> buffer.getShort(2 * at).toFloat()
    }

    /** The stored values of a full buffer: Float, or Int for an integer tensor. */
    fun stored(buffer: ByteBuffer): List<Number> =
        List(size) { at -> stored(buffer, at).let { if (type == Type.FLOAT32) it else it.toInt() } }

    /** The dequantized values of a full buffer. */
    fun values(buffer: ByteBuffer): FloatArray =
        FloatArray(size) { at -> stored(buffer, at).let { if (scale == 0f) it else scale * (it - zeroPoint) } }
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
    private val integers = Array(channels) { c -> IntArray(256) { pixel -> quantized(pixel, floats[c][pixel]) } }

    private fun quantized(pixel: Int, value: Float): Int {
        val number = when {
            pixelOffset != null -> (pixel + pixelOffset).toDouble()
            tensor.scale != 0f -> Math.rint((value / tensor.scale).toDouble()) + tensor.zeroPoint
            else -> value.toDouble()
        }
        return number.coerceIn(tensor.type.range).toInt()
    }

    /** Fills the input [buffer], in the machine's byte order, with a photo of the model's size, in grey for one channel. */
    fun write(photo: Photo, buffer: ByteBuffer) {
        require(photo.width * photo.height * channels == tensor.size) { "${photo.width} x ${photo.height} for ${tensor.shape}" }
        for (channel in 0 until channels) {
            val real = floats[channel]
            val integer = integers[channel]
            for (i in 0 until photo.width * photo.height) {
                val pixel = if (channels == 1) photo.luma(i) else photo.rgb[3 * i + channel].toInt() and 255
                val at = channels * i + channel
                when (tensor.type) {
                    Type.FLOAT32 -> buffer.putFloat(4 * at, real[pixel])
                    Type.INT8, Type.UINT8 -> buffer.put(at, integer[pixel].toByte())
                    Type.INT16 -> buffer.putShort(2 * at, integer[pixel].toShort())
                }
            }
        }
    }
}

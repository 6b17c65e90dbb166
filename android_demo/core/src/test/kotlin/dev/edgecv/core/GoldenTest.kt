package dev.edgecv.core

import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.double
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.CsvSource
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** Compares with the vectors that golden/make_golden.py computed in Python. */
class GoldenTest {
    private fun preprocessing(fields: JsonObject) = Preprocessing(
        height = fields.int("height"),
        width = fields.int("width"),
        channels = fields.int("channels"),
        resizeTo = fields.intOrNull("resize_to"),
        rule = Rule.valueOf(fields.text("rule").uppercase()),
        interpolation = Interpolation.valueOf(fields.text("interpolation").uppercase()),
    )

    @ParameterizedTest
    @CsvSource(
        "crop_then_resize,nearest", "crop_then_resize,bilinear", "crop_then_resize,bicubic", "crop_then_resize,lanczos",
        "resize_then_crop,nearest", "resize_then_crop,bilinear", "resize_then_crop,bicubic", "resize_then_crop,lanczos",
        "stretch,nearest", "stretch,bilinear", "stretch,bicubic", "stretch,lanczos",
    )
    fun `crop and resize equal Python bit for bit for photos of any shape`(rule: String, interpolation: String) {
        val cases = Golden.cases("crops").filter {
            val fields = it.getValue("preprocessing").jsonObject
            fields.text("rule") == rule && fields.text("interpolation") == interpolation
        }
        assertTrue(cases.size > 90, "${cases.size} cases")
        val wrong = cases.filter {
            val preprocessing = preprocessing(it.getValue("preprocessing").jsonObject)
            val cropped = preprocessing.cropAndResize(Golden.photo(it))
            Golden.digest(if (preprocessing.channels == 1) luma(cropped) else cropped.rgb) != it.text("pixels")
        }
        assertEquals(emptyList<JsonObject>(), wrong)
    }

    private fun luma(photo: Photo) = ByteArray(photo.width * photo.height) { photo.luma(it).toByte() }

    @Test
    fun `a photo of any EXIF orientation is rotated as in Python`() {
        for (case in Golden.cases("orientations")) {
            val upright = Golden.photo(case).upright(case.int("orientation"))
            assertEquals(case.ints("upright"), listOf(upright.width, upright.height), case.toString())
            assertEquals(case.text("pixels"), Golden.digest(upright.rgb), case.toString())
        }
    }

    @ParameterizedTest
    @CsvSource("0,1", "3,1", "0,2", "5,2")
    fun `a camera frame with any strides becomes the same RGB as in Pillow`(padding: Int, pixelStride: Int) {
        for (case in Golden.cases("camera_frames")) {
            val (width, height) = case.ints("frame")
            val halfWidth = (width + 1) / 2
            val halfHeight = (height + 1) / 2
            val planes = listOf(
                plane(Golden.noise(width * height, 1), width, height, padding, 1),
                plane(Golden.noise(halfWidth * halfHeight, 2), halfWidth, halfHeight, padding, pixelStride),
                plane(Golden.noise(halfWidth * halfHeight, 3), halfWidth, halfHeight, padding, pixelStride),
            )
            val frame = CameraFrame(width, height, planes[0], planes[1], planes[2], case.int("degrees"))
            val photo = Reference.crop(frame, 0, 0, frame.width, frame.height)
            assertEquals(case.ints("upright"), listOf(photo.width, photo.height), case.toString())
            assertEquals(case.text("pixels"), Golden.digest(photo.rgb), case.toString())
        }
    }

    /** A plane whose last row ends with its last value, as in camera frames. */
    private fun plane(values: ByteArray, width: Int, height: Int, padding: Int, pixelStride: Int): Plane {
        val rowStride = width * pixelStride + padding
        val bytes = ByteArray(rowStride * (height - 1) + (width - 1) * pixelStride + 1)
        for (y in 0 until height) {
            for (x in 0 until width) bytes[y * rowStride + x * pixelStride] = values[y * width + x]
        }
        return Plane(bytes, rowStride, pixelStride)
    }

    @Test
    fun `an input tensor has the same bytes as in Python`() {
        for (case in Golden.cases("inputs")) {
            val photo = Golden.photo(case)
            val type = Type.valueOf(case.text("dtype").uppercase())
            val mean = case.floats("mean")
            val tensor = Tensor(listOf(1, photo.height, photo.width, mean.size), type, case.floatOrNull("scale") ?: 0f, case.intOrNull("zero_point") ?: 0)
            val preprocessing = Preprocessing(photo.width, mean = mean, std = case.floats("std"), channels = mean.size)
            val buffer = tensor.buffer()
            InputWriter(tensor, preprocessing, case.intOrNull("pixel_offset")).write(photo, buffer)
            val bytes = ByteArray(tensor.bytes).also { buffer.order(ByteOrder.LITTLE_ENDIAN).rewind().let { b -> (b as ByteBuffer).get(it) } }
            assertEquals(case.text("bytes"), Golden.digest(bytes), case.toString())
        }
    }

    @Test
    fun `int8 outputs give the same classes and probabilities as numpy, equal values by index`() {
        for (case in Golden.cases("answers")) {
            val tensor = Tensor(listOf(1, 1000), Type.INT8, case.floatOrNull("scale")!!, case.int("zero_point"))
            val buffer = tensor.buffer()
            Golden.noise(1000, case.int("seed")).forEachIndexed { i, value -> buffer.put(i, ((value.toInt() and 255) % case.int("spread") - 128).toByte()) }
            val values = tensor.values(buffer)
            val top = topK(values, 5)
            assertEquals(case.ints("top"), top)
            val probabilities = softmax(values)
            case.getValue("probabilities").jsonArray.forEachIndexed { i, expected ->
                assertEquals(expected.jsonPrimitive.double, probabilities[top[i]], 1e-7)
            }
        }
    }

    @Test
    fun `percentiles equal numpy's`() {
        for (case in Golden.cases("percentiles")) {
            val count = case.int("count")
            val values = Golden.noise(count, count).map { (it.toInt() and 255) / 7.0 }
            for ((share, expected) in case.getValue("expected").jsonObject) {
                assertEquals(expected.jsonPrimitive.double, percentile(values, share.toInt() / 100.0), 1e-12, "$count, $share")
            }
        }
    }
}

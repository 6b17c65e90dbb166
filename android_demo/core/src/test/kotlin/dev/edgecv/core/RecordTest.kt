package dev.edgecv.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.ValueSource
import java.nio.ByteBuffer
import java.util.Random

class RecordTest {
    // the smallest file with the identifier: an empty root table
    private val empty = byteArrayOf(12, 0, 0, 0, 'T'.code.toByte(), 'F'.code.toByte(), 'L'.code.toByte(), '3'.code.toByte(), 4, 0, 4, 0, 4, 0, 0, 0)

    private fun read(sidecar: String?, content: ByteArray = empty) = Record.read("net.tflite", ByteBuffer.wrap(content), sidecar)

    private fun sentence(sidecar: String?, content: ByteArray = empty): String {
        val message = assertThrows(InputError::class.java) { read(sidecar, content) }.message!!
        assertFalse('\n' in message, message)
        assertTrue(message.length < 400, message)
        return message
    }

    @Test
    fun `a sidecar is read with all its fields`() {
        val record = read(
            """{"file": "net.tflite", "size_bytes": 16, "macs": 5000000000, "format": "tflite", "target": null,
                "name": "net", "scheme": "int8", "labels": ["cat", "dog"], "something": {"new": 1},
                "preprocessing": {"image_size": 32, "resize_to": 40, "rule": "resize_then_crop", "interpolation": "lanczos",
                                  "mean": [1, 2.5, 3], "std": [4, 5, 6]},
                "input": {"name": "pixels", "shape": [1, 32, 32, 3], "dtype": "int8", "scale": 0.5, "zero_point": -1,
                          "pixel_offset": -128, "takes_pixels": true},
                "output": {"shape": [1, 2], "dtype": "float32", "scale": null, "values": "probabilities"}}""",
        )
        val preprocessing = Preprocessing(32, 40, Rule.RESIZE_THEN_CROP, Interpolation.LANCZOS, listOf(1f, 2.5f, 3f), listOf(4f, 5f, 6f))
        val input = InputRecord(TensorRecord("pixels", listOf(1, 32, 32, 3), "int8", 0.5f, -1), pixelOffset = -128, takesPixels = true)
        val output = OutputRecord(TensorRecord("", listOf(1, 2), "float32"), OutputRecord.PROBABILITIES)
        val expected = Record(
            "net", "int8", "tflite", preprocessing, listOf("cat", "dog"), input, output, macs = 5_000_000_000, file = "net.tflite", sizeBytes = 16,
        )
        assertEquals(expected, record)
        assertFalse(record.output.logits)
    }

    @Test
    fun `a grey rectangle has one mean and one std, and needs height and width`() {
        val text = """{"preprocessing": {"height": 24, "width": 40, "channels": 1, "resize_to": null, "mean": [7], "std": [2]}}"""
        val expected = Preprocessing(24, mean = listOf(7f), std = listOf(2f), width = 40, channels = 1)
        assertEquals(expected, read(text).preprocessing)
        assertThrows(InputError::class.java) { read(text.replace("[7]", "[7, 7, 7]")) }
        assertThrows(InputError::class.java) { read(text.replace("\"height\": 24, ", "")) }
    }

    @Test
    fun `absent fields have Python's defaults`() {
        val record = read("""{"preprocessing": {"image_size": 32, "resize_to": null}, "labels": null, "input": {"pixel_offset": null}}""")
        assertEquals(Record("net", preprocessing = Preprocessing(32)), record)
        assertTrue(record.output.logits)
    }

    @ParameterizedTest
    @ValueSource(
        strings = [
            "", "{", "[]", "null", "7", "\"text\"", "{\"name\": 1}", "{\"name\": [\"a\"]}", "{\"labels\": \"cat\"}", "{\"labels\": [1]}",
            "{\"labels\": [null]}", "{\"preprocessing\": []}", "{\"preprocessing\": {}}", "{\"preprocessing\": {\"image_size\": \"224\"}}",
            "{\"preprocessing\": {\"image_size\": 0}}", "{\"preprocessing\": {\"image_size\": 2.5}}", "{\"preprocessing\": {\"image_size\": true}}",
            "{\"preprocessing\": {\"image_size\": 1e99}}", "{\"preprocessing\": {\"image_size\": 2000000000}}",
            "{\"preprocessing\": {\"image_size\": 224, \"resize_to\": 100}}", "{\"preprocessing\": {\"image_size\": 224, \"resize_to\": 8193}}",
            "{\"preprocessing\": {\"image_size\": 224, \"rule\": \"fold\"}}", "{\"preprocessing\": {\"image_size\": 224, \"rule\": 3}}",
            "{\"preprocessing\": {\"image_size\": 224, \"interpolation\": \"\"}}", "{\"preprocessing\": {\"image_size\": 224, \"mean\": 1}}",
            "{\"preprocessing\": {\"image_size\": 224, \"mean\": [1, 2]}}", "{\"preprocessing\": {\"image_size\": 224, \"mean\": [1, 2, 1e300]}}",
            "{\"preprocessing\": {\"image_size\": 224, \"std\": [1, 0, 1]}}", "{\"preprocessing\": {\"image_size\": 224, \"std\": [1, \"x\", 1]}}",
            "{\"input\": {\"pixel_offset\": 100000}}", "{\"input\": 1}", "{\"output\": {\"values\": 1}}", "{\"sha256\": \"00\"}", "{\"sha256\": 5}",
            "{\"input\": {\"shape\": [1, \"2\"]}}", "{\"input\": {\"scale\": \"a\"}}", "{\"input\": {\"takes_pixels\": 1}}",
            "{\"output\": {\"zero_point\": 1.5}}", "{\"macs\": \"many\"}", "{\"file\": 1}",
        ],
    )
    fun `an invalid sidecar raises an error of one sentence`(sidecar: String) {
        sentence(sidecar)
    }

    @Test
    fun `a deeply nested sidecar raises an error of one sentence`() {
        sentence("[".repeat(200_000))
        sentence("{\"a\":".repeat(200_000))
    }

    @Test
    fun `the sidecar of another file is rejected`() {
        assertTrue("belongs to another file" in sentence("""{"sha256": "${"0".repeat(64)}"}"""))
        assertEquals("net", read("""{"sha256": "${Record.sha256(ByteBuffer.wrap(empty))}"}""").name)
    }

    @Test
    fun `a file without metadata has a record without preprocessing`() {
        assertNull(read(null).preprocessing)
    }

    @ParameterizedTest
    @ValueSource(strings = ["", "TFL3", "not a model at all", "PK\u0003\u0004"])
    fun `a file that is not TFLite raises an error of one sentence`(content: String) {
        assertTrue("not a TFLite file" in sentence(null, content.toByteArray()))
    }

    @Test
    fun `random bytes behind the identifier raise nothing but an InputError`() {
        val random = Random(1)
        repeat(5000) {
            val content = ByteArray(8 + random.nextInt(200)).also(random::nextBytes)
            "TFL3".toByteArray().copyInto(content, 4)
            if (it % 2 == 0) for (i in content.indices) if (i !in 4..7) content[i] = (content[i].toInt() and 15).toByte()
            try {
                read(null, content)
            } catch (error: InputError) {
                assertFalse('\n' in error.message!!)
            }
        }
    }
}

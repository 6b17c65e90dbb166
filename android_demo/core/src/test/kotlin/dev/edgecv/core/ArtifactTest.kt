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

class ArtifactTest {
    // the smallest file with the identifier: an empty root table
    private val empty = byteArrayOf(12, 0, 0, 0, 'T'.code.toByte(), 'F'.code.toByte(), 'L'.code.toByte(), '3'.code.toByte(), 4, 0, 4, 0, 4, 0, 0, 0)

    private fun read(sidecar: String?, content: ByteArray = empty) = Artifact.read("net.tflite", ByteBuffer.wrap(content), sidecar)

    private fun sentence(sidecar: String?, content: ByteArray = empty): String {
        val message = assertThrows(InputError::class.java) { read(sidecar, content) }.message!!
        assertFalse('\n' in message, message)
        assertTrue(message.length < 400, message)
        return message
    }

    @Test
    fun `a sidecar says all that the app knows`() {
        val artifact = read(
            """{"name": "net", "scheme": "int8", "labels": ["cat", "dog"], "something": {"new": 1},
                "preprocessing": {"image_size": 32, "resize_to": 40, "rule": "resize_then_crop", "interpolation": "lanczos",
                                  "mean": [1, 2.5, 3], "std": [4, 5, 6]},
                "input": {"pixel_offset": -128}, "output": {"values": "probabilities"}}""",
        )
        val preprocessing = Preprocessing(32, 40, Rule.RESIZE_THEN_CROP, Interpolation.LANCZOS, listOf(1f, 2.5f, 3f), listOf(4f, 5f, 6f))
        assertEquals(Artifact("net", "int8", preprocessing, -128, listOf("cat", "dog"), logits = false), artifact)
    }

    @Test
    fun `what a sidecar leaves out has the defaults that Python has`() {
        val artifact = read("""{"preprocessing": {"image_size": 32, "resize_to": null}, "labels": null, "input": {"pixel_offset": null}}""")
        assertEquals(Artifact("net", "", Preprocessing(32), null, null, logits = true), artifact)
    }

    @ParameterizedTest
    @ValueSource(
        strings = [
            "", "{", "[]", "null", "7", "\"text\"", "{\"name\": 1}", "{\"name\": [\"a\"]}", "{\"labels\": \"cat\"}", "{\"labels\": [1]}",
            "{\"labels\": [null]}", "{\"preprocessing\": []}", "{\"preprocessing\": {}}", "{\"preprocessing\": {\"image_size\": \"224\"}}",
            "{\"preprocessing\": {\"image_size\": 0}}", "{\"preprocessing\": {\"image_size\": 2.5}}", "{\"preprocessing\": {\"image_size\": true}}",
            "{\"preprocessing\": {\"image_size\": 1e99}}", "{\"preprocessing\": {\"image_size\": 2000000000}}",
            "{\"preprocessing\": {\"image_size\": 224, \"resize_to\": 100}}", "{\"preprocessing\": {\"image_size\": 224, \"resize_to\": 1000000000}}",
            "{\"preprocessing\": {\"image_size\": 224, \"rule\": \"fold\"}}", "{\"preprocessing\": {\"image_size\": 224, \"rule\": 3}}",
            "{\"preprocessing\": {\"image_size\": 224, \"interpolation\": \"\"}}", "{\"preprocessing\": {\"image_size\": 224, \"mean\": 1}}",
            "{\"preprocessing\": {\"image_size\": 224, \"mean\": [1, 2]}}", "{\"preprocessing\": {\"image_size\": 224, \"mean\": [1, 2, 1e300]}}",
            "{\"preprocessing\": {\"image_size\": 224, \"std\": [1, 0, 1]}}", "{\"preprocessing\": {\"image_size\": 224, \"std\": [1, \"x\", 1]}}",
            "{\"input\": {\"pixel_offset\": 1000}}", "{\"input\": 1}", "{\"output\": {\"values\": 1}}", "{\"sha256\": \"00\"}", "{\"sha256\": 5}",
        ],
    )
    fun `a hostile sidecar gets a sentence`(sidecar: String) {
        sentence(sidecar)
    }

    @Test
    fun `a sidecar of endless depth gets a sentence`() {
        sentence("[".repeat(200_000))
        sentence("{\"a\":".repeat(200_000))
    }

    @Test
    fun `a sidecar of another file is known for what it is`() {
        assertTrue("belongs to another file" in sentence("""{"sha256": "${"0".repeat(64)}"}"""))
        assertEquals("net", read("""{"sha256": "${Artifact.sha256(ByteBuffer.wrap(empty))}"}""").name)
    }

    @Test
    fun `a file without any metadata is opened without a preprocessing`() {
        assertNull(read(null).preprocessing)
    }

    @ParameterizedTest
    @ValueSource(strings = ["", "TFL3", "not a model at all", "PK\u0003\u0004"])
    fun `what is no TFLite file gets a sentence`(content: String) {
        assertTrue("no TFLite file" in sentence(null, content.toByteArray()))
    }

    @Test
    fun `a file of random bytes behind the identifier never does more than throw a sentence`() {
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

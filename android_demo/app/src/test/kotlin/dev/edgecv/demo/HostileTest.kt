package dev.edgecv.demo

import android.net.Uri
import dev.edgecv.core.Catalogue
import dev.edgecv.core.Delegate
import dev.edgecv.core.InputError
import dev.edgecv.core.ModelSource
import dev.edgecv.core.Preprocessing
import dev.edgecv.core.Session
import dev.edgecv.core.Settings
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.jsonObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import java.io.ByteArrayInputStream
import java.nio.ByteBuffer
import java.util.Random

/** Invalid sidecars, models and photos are messages, and the app goes on. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35])
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class HostileTest : AppTest() {
    private val values = listOf(
        "null", "0", "-1", "1", "0.5", "2147483647", "-2147483648", "9007199254740993", "1e308", "1e-308", "NaN", "true", "\"\"", "\"1\"",
        "[]", "[0]", "[1e9,1e9,1e9]", "[[1]]", "{}", "{\"a\":{}}", "8192", "4097", "[-1,0,1]", "\"${"x".repeat(100_000)}\"",
    )

    private fun source(content: ByteBuffer, sidecar: String?) = object : ModelSource {
        override val file = "hostile.tflite"

        override fun content() = content

        override fun sidecar() = sidecar
    }

    private fun JsonObject.with(path: List<String>, value: JsonElement): JsonObject =
        JsonObject(this + (path[0] to if (path.size == 1) value else getValue(path[0]).jsonObject.with(path.drop(1), value)))

    @Test
    fun `any value of any field of a sidecar is a message or a working model`() {
        val model = "small_int16x8.tflite"
        val good = JsonObject(Json.parseToJsonElement(Shipped.sidecar(model)).jsonObject - "sha256")
        val fields = listOf("height", "width", "channels", "resize_to", "rule", "mean", "std").map { listOf("preprocessing", it) } +
            listOf(listOf("labels"), listOf("name"), listOf("input", "pixel_offset"), listOf("output", "values"), listOf("output", "activation"))
        var count = 0
        Session(TfliteRuntime, Settings(1, Delegate.XNNPACK)) {}.use { session ->
            for (field in fields) for (value in values) {
                session.open(source(Shipped.content(model), good.with(field, Json.parseToJsonElement(value)).toString()))
                session.classify { Shipped.photos[0] }
                session.await()
                val state = session.state
                assertTrue("$field $value: $state", state.error?.let { "\n" !in it && it.length < 500 } ?: state.model!!.predictions.isNotEmpty())
                count++
            }
            session.open(Shipped.source(model))
            session.classify { Shipped.photos[0] }
            session.await()
            assertNull(session.state.error)
        }
        assertTrue("$count", count > 200)
    }

    @Test
    fun `cut and overwritten models are messages or working models`() {
        val model = Shipped.file("small_int16x8.tflite").readBytes()
        val random = Random(3)
        Session(TfliteRuntime, Settings(1, Delegate.CPU)) {}.use { session ->
            repeat(60) { n ->
                val bytes = if (n % 2 == 0) model.copyOf(random.nextInt(model.size)) else model.clone()
                // the embedded record and the metadata; the runtime's own checks do not cover the weights' meaning
                if (n % 2 == 1) repeat(40) { bytes[model.size / 2 + random.nextInt(model.size / 2)] = random.nextInt().toByte() }
                val content = ByteBuffer.allocateDirect(bytes.size).put(bytes).apply { rewind() } as ByteBuffer
                Catalogue.variant(source(content, null))
                if (n % 2 == 0) session.open(source(content, null))
                session.await()
                assertTrue(session.state.error?.let { "\n" !in it } ?: true)
            }
        }
    }

    @Test
    fun `cut and overwritten photos are messages or photos`() {
        val png = png(Shipped.photos[0])
        val random = Random(4)
        repeat(60) { n ->
            val bytes = if (n % 2 == 0) png.copyOf(random.nextInt(png.size)) else png.clone()
            if (n % 2 == 1) repeat(20) { bytes[random.nextInt(minOf(2000, png.size))] = random.nextInt().toByte() }
            val uri = Uri.parse("content://photos/$n")
            shadowOf(app.contentResolver).registerInputStreamSupplier(uri) { ByteArrayInputStream(bytes) }
            try {
                val photo = Gallery.decode(app, uri)
                assertEquals(32, Preprocessing(32).cropAndResize(photo).width)
            } catch (error: InputError) {
                assertTrue(error.message!!, error.message!!.startsWith("The photo cannot be read: "))
            }
        }
    }
}

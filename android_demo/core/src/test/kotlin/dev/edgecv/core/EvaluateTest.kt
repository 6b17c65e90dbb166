package dev.edgecv.core

import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.util.concurrent.ConcurrentLinkedQueue
import java.util.concurrent.CountDownLatch

/** The accuracy run of a session. */
class EvaluateTest : PhoneTest() {
    private val kept = ConcurrentLinkedQueue<JsonObject>()

    private fun photo(channel: Int) = Photo(5, 3, ByteArray(45) { if (it % 3 == channel) -1 else 0 })

    private fun labelled(label: String, channel: Int) = LabelledPhoto(label) { photo(channel) }

    private fun Session.evaluated(photos: List<LabelledPhoto>): JsonObject {
        evaluate(Accuracy(photos, NoMachine)) { kept += it }
        await()
        return state.measured!!.result
    }

    private fun JsonObject.number(name: String) = getValue("accuracy").jsonObject.getValue(name).jsonPrimitive.int

    private fun JsonObject.reason() = getValue("error").jsonPrimitive.content

    @Test
    fun `photos are counted by class, with those that cannot be read and folders that are no class`() {
        val session = session(Phone())
        session.open(colours)
        val photos = listOf(
            labelled("Red", 0), labelled("Red", 0), labelled("Red", 2), labelled("green", 1),
            LabelledPhoto("green") { throw InputError("The photo is broken.") }, labelled("violet", 0),
        )
        val result = session.evaluated(photos)
        assertEquals(listOf(4, 3, 4, 1), listOf("images", "top1", "top5", "unread").map { result.number(it) })
        val accuracy = result.getValue("accuracy").jsonObject
        assertEquals("The photo is broken.", accuracy.getValue("unread_reason").jsonPrimitive.content)
        assertEquals(listOf("violet"), accuracy.getValue("unknown").jsonArray.map { it.jsonPrimitive.content })
        assertEquals("phone XNNPACK", accuracy.getValue("runtime").jsonPrimitive.content)
        val classes = accuracy.getValue("classes").jsonArray.map { it.jsonObject.values.map { value -> value.jsonPrimitive.content } }
        assertEquals(listOf(listOf("Red", "3", "2"), listOf("green", "1", "1")), classes)
        val artifact = result.getValue("artifact").jsonObject
        assertEquals(listOf("colours.tflite", Record.sha256(colours.content())), artifact.values.map { it.jsonPrimitive.content })
        assertEquals(listOf(result), kept.toList())
        assertNull(session.state.notice)
        assertNull(session.state.progress)
        val progress = states.mapNotNull { it.progress }
        assertEquals((0..6).map { Progress(it, 6) }, progress.distinct())
        assertTrue(states.filter { it.progress != null }.all { it.notice == Notice.EVALUATING })
    }

    @Test
    fun `progress is shown at most a hundred times`() {
        val session = session(Phone())
        session.open(colours)
        session.evaluated(List(1234) { labelled("blue", 2) })
        val progress = states.mapNotNull { it.progress }.distinct()
        assertEquals(101, progress.size)
        assertEquals(Progress(1234, 1234), progress.last())
    }

    @Test
    fun `nothing to measure is a reason, and the model stays open`() {
        val session = session(Phone())
        session.evaluate(Accuracy(listOf(labelled("red", 0)), NoMachine)) { kept += it }
        session.await()
        assertEquals("There is no open model to evaluate.", session.state.error)
        session.open(colours)
        assertTrue("a subfolder of photos for each class" in session.evaluated(emptyList()).reason())
        assertTrue("such as red. Received: cats, dogs" in session.evaluated(listOf(labelled("cats", 0), labelled("dogs", 1))).reason())
        val unread = listOf(LabelledPhoto("red") { throw InputError("it is locked") })
        assertEquals("None of the photos can be read: it is locked", session.evaluated(unread).reason())
        val failing = listOf(LabelledPhoto("red") { throw NegativeArraySizeException("-1") })
        assertEquals("-1", session.evaluated(failing).reason())
        val large = listOf(LabelledPhoto("red") { throw OutOfMemoryError() })
        assertTrue("too little memory" in session.evaluated(large).reason())
        session.classify { photo(1) }
        session.await()
        assertEquals("green", session.state.model!!.predictions.first().label)
    }

    @Test
    fun `a delegate that fails in the middle ends the run, because its result would be of two delegates`() {
        val session = session(Phone(failing = setOf(Delegate.GPU)), Delegate.GPU)
        session.open(colours)
        val reason = session.evaluated(List(3) { labelled("red", 0) }).reason()
        assertEquals("phone GPU failed, so the run was stopped: GPU failed", reason)
    }

    @Test
    fun `a cancelled run has no result, and photos are classified again`() {
        val running = CountDownLatch(1)
        val release = CountDownLatch(1)
        val session = session(Phone())
        session.open(colours)
        var read = 0
        val photos = List(100) { LabelledPhoto("red") { read++; running.countDown(); release.await(); photo(0) } }
        session.evaluate(Accuracy(photos, NoMachine)) { throw AssertionError("there is no result") }
        running.await()
        session.cancel()
        release.countDown()
        session.classify { photo(1) }
        session.await()
        assertEquals(1, read)
        assertNull(session.state.measured)
        assertNull(session.state.error)
        assertNull(session.state.progress)
        assertEquals("green", session.state.model!!.predictions.first().label)
    }

    @Test
    fun `closing ends a run before its next photo`() {
        val running = CountDownLatch(1)
        val release = CountDownLatch(1)
        val session = session(Phone())
        session.open(colours)
        var read = 0
        session.evaluate(Accuracy(List(100) { LabelledPhoto("red") { read++; running.countDown(); release.await(); photo(0) } }, NoMachine)) {}
        running.await()
        session.close()
        release.countDown()
        assertTrue(session.awaitClosed(30))
        assertEquals(1, read)
    }

    @Test
    fun `without labels the folders are indices, and a single output has two classes`() {
        val session = session(Phone())
        session.open(Model("plain.tflite", """{"name": "plain", "preprocessing": {"image_size": 2}, "input": {"pixel_offset": 0}}"""))
        assertEquals(2, session.evaluated(listOf(labelled("0", 0), labelled("1", 1), labelled("1", 2))).number("top1"))
        assertFalse(session.state.measured!!.result.containsKey("error"))
    }

    @Test
    fun `the names of a labels file replace those of the record`() {
        val session = session(Phone())
        session.open(object : ModelSource by colours {
            override fun labels() = "\uFEFFrot\r\ngruen\r\nblau\r\n\r\n"
        })
        assertEquals(1, session.evaluated(listOf(labelled("gruen", 1))).number("top1"))
        for ((text, words) in listOf("a\n\nb\n" to "none in line 2", "\n" to "one class name a line", "a\nb" to "3 outputs, but 2 labels")) {
            session.open(object : ModelSource by colours {
                override fun labels() = text
            })
            session.await()
            assertTrue(words in session.state.error!!, session.state.error)
        }
    }
}

package dev.edgecv.demo

import android.Manifest
import android.graphics.Matrix
import android.graphics.SurfaceTexture
import android.hardware.camera2.CameraCaptureSession
import android.hardware.camera2.CaptureRequest
import android.os.Handler
import android.view.Surface
import android.view.TextureView
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import org.robolectric.annotation.Implementation
import org.robolectric.annotation.Implements
import org.robolectric.shadows.ShadowCameraCaptureSessionImpl
import java.util.concurrent.ConcurrentLinkedQueue
import java.util.concurrent.atomic.AtomicInteger

/** Camera2 on the framework's real code, with a camera that delivers no frames. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], qualifiers = "w411dp-h891dp-xhdpi")
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class CameraTest : AppTest() {
    private val failures = ConcurrentLinkedQueue<String>()
    private val surfaces = ConcurrentLinkedQueue<Preview>()

    private fun camera() = Camera(app, onFrame = { _, _ -> }, onFailure = { failures += it }, surfaceOf = { Preview(it).also(surfaces::add) })

    private class Preview(texture: SurfaceTexture) : Surface(texture) {
        @Volatile
        var released = false

        override fun release() {
            released = true
            super.release()
        }
    }

    /** Counts the requests that run until the camera stops. */
    @Implements(className = "android.hardware.camera2.impl.CameraCaptureSessionImpl")
    class Sessions : ShadowCameraCaptureSessionImpl() {
        @Implementation
        public override fun setRepeatingRequest(request: CaptureRequest, callback: CameraCaptureSession.CaptureCallback?, handler: Handler?): Int {
            requests.incrementAndGet()
            return 1
        }

        companion object {
            val requests = AtomicInteger()
        }
    }

    private fun Matrix.values() = FloatArray(9).also { getValues(it) }

    @Test
    @Config(shadows = [Sessions::class])
    fun `a camera opens, is configured, shows an undistorted preview, and releases it when it stops`() {
        addCamera()
        shadowOf(app).grantPermissions(Manifest.permission.CAMERA)
        val camera = camera()
        Sessions.requests.set(0)
        repeat(3) { n ->
            camera.start(surface(), 480, 1080)
            val matrix = camera.previewTransform(1080, 1440) // the preview of 1440 x 1080, mounted at 90 degrees, fits exactly
            assertEquals(listOf(1f, 1f), listOf(matrix.values()[Matrix.MSCALE_X], matrix.values()[Matrix.MSCALE_Y]))
            until("the session is configured") { Sessions.requests.get() == n + 1 }
            val preview = surfaces.last()
            assertFalse(preview.released)
            camera.stop()
            until("the preview is released") { preview.released }
            assertTrue(camera.previewTransform(1080, 1440).isIdentity)
        }
        assertEquals(emptyList<String>(), failures.toList())
        camera.start(surface(), 480, 1080)
        until("the session is configured") { Sessions.requests.get() == 4 }
        shadowOf(cameras).triggerDisconnect()
        until("another app has the camera") { failures.toList() == listOf("another app uses it") }
        camera.stop()
        until("the preview is released") { surfaces.all { it.released } }
    }

    @Test
    fun `a camera that is gone is a message`() {
        addCamera()
        shadowOf(app).grantPermissions(Manifest.permission.CAMERA)
        val camera = camera()
        camera.start(surface(), 480, 1080)
        shadowOf(cameras).removeCamera("0")
        camera.displayDegrees = 90
        camera.previewTransform(1080, 1440)
        camera.start(surface(), 480, 1080)
        assertEquals(1, failures.size)
        assertTrue(camera.previewTransform(1080, 1440).isIdentity)
    }

    @Test
    fun `the preview is upright after a half turn, which does not restart the activity`() {
        addCamera()
        shadowOf(app).grantPermissions(Manifest.permission.CAMERA)
        val activity = start().get()
        val texture = activity.view<TextureView>(R.id.preview)
        if (texture.surfaceTexture == null) texture.setSurfaceTexture(surface())
        activity.click(R.id.camera_button)
        idle()
        fun upright() = texture.getTransform(null).values()[Matrix.MSCALE_X] > 0
        assertTrue(upright())
        @Suppress("DEPRECATION") // the app uses it on older systems too
        shadowOf(activity.windowManager.defaultDisplay).setRotation(Surface.ROTATION_180)
        until("the preview is turned", activity) { !upright() }
    }
}

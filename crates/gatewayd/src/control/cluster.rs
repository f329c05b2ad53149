//! The control loop's part in a cluster: becoming active, standing by, and telling the one that does.

use base::{Instant, Machine};
use cluster::{Output as Change, Role};
use gateway::{Output, Severity};
use sa::{SaChange, SaId};
use tracing::{error, info};

use super::{Control, random};
use crate::cluster::{Heard, SWITCH, Word, held};
use crate::data::Order;
use crate::world::World;
use esp::export::ExportedSa;

/// Routes that are told in one piece.
const ROUTES: usize = 1_000;

impl Control {
    /// Whether what BGP learns is for the kernel: one that stands by keeps what the other learnt, and not what BGP here takes
    /// back when it ends.
    pub(super) fn takes_learnt(&self) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| cluster.role == Role::Active)
    }

    /// Whether this gateway negotiates and carries traffic. One that has given up its place only opens what is under way to
    /// it: what it said in IKE now, the other would not know of.
    pub(super) fn is_active(&self) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| cluster.role == Role::Active && cluster.leaves_at.is_none())
    }

    /// When the gateway wants to be looked after.
    pub(super) fn gateway_due(&self) -> Option<Instant> {
        let lingers = self.cluster.as_ref().is_some_and(|cluster| cluster.leaves_at.is_some());
        self.gateway.poll_timeout().filter(|_| !lingers).map(|deadline| deadline.at)
    }

    /// Something of the cluster.
    pub(super) async fn hear_cluster(&mut self, heard: Heard, world: &mut World) {
        let now = self.clock.now();
        let Some(cluster) = &mut self.cluster else { return };
        match heard {
            Heard::Member(Change::TakeOver { why }) => self.become_active(why, world).await,
            Heard::Member(Change::StandBy { why }) => {
                if cluster.linger(now) {
                    self.note_cluster(Severity::Info, format!("stands by: {why}"));
                } else {
                    self.stand_by(why, world).await;
                }
            }
            Heard::Member(Change::Partner { is_heard: true }) => {
                if cluster.role == Role::Active {
                    // It may have had the addresses too.
                    cluster.announce_addresses(world.netlink(), now).await;
                }
                self.note_cluster(Severity::Info, "the other member is heard".to_owned());
            }
            Heard::Member(Change::Partner { is_heard: false }) => {
                self.note_cluster(Severity::Warning, "the other member is silent".to_owned());
            }
            Heard::Member(Change::AskForPlace) => cluster.say(&Word::AskForPlace),
            Heard::Member(Change::Send(_)) => {}
            Heard::Begun(line) => {
                cluster.take_line(line);
                if cluster.role == Role::Active {
                    self.begin_telling().await;
                }
            }
            Heard::Said(number, word) => {
                if cluster.line.as_ref().is_some_and(|line| line.number == number) {
                    self.hear_word(word, world).await;
                }
            }
            Heard::Ended(number, why) => {
                if cluster.line.as_ref().is_some_and(|line| line.number == number) {
                    cluster.lose_line();
                    self.note_cluster(Severity::Warning, format!("nothing is told between the members: {why}"));
                }
            }
            Heard::Note(why) => {
                if cluster.note_trouble(why.clone()) {
                    self.note_cluster(Severity::Warning, why);
                }
            }
        }
    }

    fn note_cluster(&mut self, severity: Severity, text: String) {
        self.log.note(severity, "cluster", text);
    }

    async fn hear_word(&mut self, word: Word, world: &World) {
        let now = self.clock.now();
        let Some(cluster) = &mut self.cluster else { return };
        match (cluster.role, word) {
            (Role::Active, Word::Heard(number)) => {
                let marks = cluster.note_confirmed(number, now);
                self.handle.send([Order::Confirm(marks)]);
            }
            (Role::Active, Word::AskForPlace) => {
                if let Err(why) = self.switch().await {
                    self.note_cluster(Severity::Warning, format!("the other member asks for its place: {why}"));
                }
            }
            (Role::Standby, Word::TakePlace) => cluster.take_place(),
            (Role::Standby, word) => world.change_learnt(cluster.note(word, now)),
            (Role::Active | Role::Starting, _) => {}
        }
    }

    /// Tells the other member everything that there is.
    async fn begin_telling(&mut self) {
        if self.cluster.as_ref().is_some_and(|cluster| cluster.has_told) {
            // Whoever was told before may have gone on: with what the SAs leave out too.
            self.gateway.keep_off();
        }
        let Some(shared) = self.handle.share().await else { return };
        self.gateway.take_changed();
        let now = self.clock.now();
        let ones = self.gateway.numbers().into_iter().filter_map(|id| self.gateway.export_one(id, now));
        let mut words: Vec<Word> = ones.map(|one| Word::One(Box::new(one))).collect();
        words.extend(shared.sas.into_iter().map(|sa| Word::Sa(Box::new(sa))));
        words.extend(shared.activated.into_iter().map(Word::Activated));
        let Some(cluster) = &mut self.cluster else { return };
        let learnt: Vec<_> = cluster.learnt.all().collect();
        words.extend(learnt.chunks(ROUTES).map(|some| Word::Learnt(some.to_vec())));
        cluster.begin_telling(words, shared.marks, now);
        let text = format!("the other member is told everything: {} connections", self.gateway.numbers().len());
        self.note_cluster(Severity::Info, text);
    }

    /// Tells what these outputs are about, before they take effect; the SAs that the other hears of.
    pub(super) async fn tell_cluster(&mut self, outputs: &[Output]) -> Vec<SaId> {
        let now = self.clock.now();
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.role == Role::Active) else {
            return Vec::new();
        };
        let learnt =
            outputs.iter().filter_map(|output| if let Output::Learnt(c) = output { Some(c.clone()) } else { None });
        let learnt: Vec<_> = learnt.collect();
        learnt.iter().for_each(|change| cluster.learnt.note(change, true));
        if !cluster.is_telling {
            return Vec::new();
        }
        let mut told = Vec::new();
        cluster.words.extend((!learnt.is_empty()).then_some(Word::Learnt(learnt)));
        for output in outputs {
            let Output::Sa(change) = output else { continue };
            cluster.words.extend(match change {
                SaChange::Install(sa) => {
                    told.push(sa.id);
                    Some(Word::Sa(Box::new(ExportedSa::of(sa, now))))
                }
                SaChange::Activate(id) => Some(Word::Activated(*id)),
                SaChange::Remove(id) => Some(Word::Removed(*id)),
                SaChange::Move { id, path } => Some(Word::Moved(*id, *path)),
                SaChange::Skip { .. } => None,
            });
        }
        for id in self.gateway.take_changed() {
            cluster.words.push(match self.gateway.export_one(id, now) {
                Some(one) => Word::One(Box::new(one)),
                None => Word::Gone(id),
            });
        }
        cluster.checkpoint().await;
        told
    }

    /// What is due by the time.
    pub(super) async fn tick_cluster(&mut self, world: &mut World) {
        let now = self.clock.now();
        let Some(cluster) = &mut self.cluster else { return };
        cluster.look_in(now);
        if cluster.leaves_at.is_some_and(|at| at <= now) {
            self.stand_by("the other member took this one's place", world).await;
            return;
        }
        let released = cluster.learnt.release(now);
        if !released.is_empty() {
            if cluster.is_telling {
                cluster.say(&Word::Learnt(released.clone()));
            }
            world.change_learnt(released);
        }
        cluster.keep_addresses(world.netlink(), now).await;
        if cluster.tick_at <= now {
            cluster.tick_at = now + cluster.interval();
            if cluster.is_telling {
                self.tell_marks(false).await;
            }
        }
    }

    async fn tell_marks(&mut self, always: bool) {
        let Some(marks) = self.handle.marks().await else { return };
        let now = self.clock.now();
        if let Some(cluster) = &mut self.cluster {
            cluster.tell_marks(marks, always, now);
        }
    }

    /// Has the other member take this one's place.
    ///
    /// # Errors
    /// Why it cannot: a sentence without a full stop.
    pub(super) async fn switch(&mut self) -> Result<(), String> {
        let Some(cluster) = &self.cluster else { return Err("this gateway is not one of a cluster".to_owned()) };
        if cluster.role != Role::Active {
            return Err("this member is not the active one: ask the other".to_owned());
        }
        if !cluster.is_in_step() {
            return Err("the other member has not been told everything: it could not go on".to_owned());
        }
        self.tell_marks(true).await;
        let now = self.clock.now();
        if let Some(cluster) = &mut self.cluster {
            cluster.give_place(now);
        }
        self.note_cluster(Severity::Info, "the other member is asked to take this one's place".to_owned());
        Ok(())
    }

    /// This member is active from now on.
    async fn become_active(&mut self, why: &str, world: &mut World) {
        let began = self.clock.now();
        let Some(cluster) = &mut self.cluster else { return };
        cluster.role = Role::Active;
        cluster.leaves_at = None;
        cluster.lose_line();
        cluster.learnt.take_over(began);
        let estate = cluster.take_estate();
        cluster.has_told |= estate.is_some();
        let Ok(fresh) = random() else { return };
        let mut told = None;
        if let Some(estate) = estate {
            told = Some((estate.ones.len(), estate.sas.len()));
            let mut ids: Vec<_> = estate.sas.iter().map(|sa| sa.id).collect();
            let install = estate.sas.into_iter().map(|sa| Order::Sa(SaChange::Install(Box::new(sa))));
            self.handle.send(install);
            // Before any is active, and before packets can come: no worker uses a number that the other member may use.
            let succeeded = self.handle.succeed(estate.marks).await;
            let activated = estate.activated.iter().filter(|id| ids.contains(id));
            match succeeded {
                Ok(()) => self.handle.send(activated.map(|id| Order::Sa(SaChange::Activate(*id)))),
                Err(why) => {
                    error!("the data path cannot go on: {why}");
                    self.handle.send(ids.drain(..).map(|id| Order::Sa(SaChange::Remove(id))));
                }
            }
            if let Err(why) = self.gateway.succeed(estate.ones, fresh, self.clock.now()) {
                error!("what the other member told is of no use: {why}");
                let Ok(fresh) = random() else { return };
                self.gateway.stand_by(fresh, self.clock.now());
            }
            let orphans = ids.iter().filter(|id| !self.gateway.has_sa(**id));
            self.handle.send(orphans.map(|id| Order::Sa(SaChange::Remove(*id))));
            for lost in self.gateway.sas().into_iter().filter(|id| !ids.contains(id)) {
                // Its keys were not told yet: others are made.
                self.gateway.handle_esp_event(esp::Event::HardLimit(lost), self.clock.now());
            }
        } else {
            self.gateway.stand_by(fresh, self.clock.now());
        }
        let now = self.clock.now();
        if let Some(cluster) = &mut self.cluster {
            cluster.take_addresses(world.netlink(), now).await;
        }
        self.gateway.apply(self.config.clone(), self.clock.now());
        self.carry_out(world).await;
        let now = self.clock.now();
        if let Some(cluster) = &mut self.cluster {
            cluster.announce_addresses(world.netlink(), now).await;
        }
        self.refresh(world).await;
        let took = self.clock.now().saturating_since(began).as_millis();
        let with = match told {
            Some((connections, sas)) => format!("goes on with {connections} connections and {sas} SAs"),
            None => "was told nothing: connections are negotiated anew".to_owned(),
        };
        self.note_cluster(Severity::Warning, format!("is active: {why}; {with}; it took {took} ms"));
    }

    /// This member stands by from now on, and forgets what it had; nobody is told.
    async fn stand_by(&mut self, why: &str, world: &mut World) {
        let Some(cluster) = &mut self.cluster else { return };
        let was_active = cluster.role == Role::Active;
        cluster.role = Role::Standby;
        cluster.leaves_at = None;
        world.change_learnt(cluster.learnt.stand_by());
        cluster.leave_addresses(world.netlink()).await;
        if was_active {
            cluster.lose_line();
            cluster.has_told = false;
            let _ = cluster.take_estate();
            match random() {
                Ok(fresh) => self.gateway.stand_by(fresh, self.clock.now()),
                Err(e) => error!("{e}"),
            }
            self.gateway.apply(held(&self.config), self.clock.now());
            self.carry_out(world).await;
        }
        self.note_cluster(Severity::Warning, format!("stands by: {why}"));
    }

    /// Before the process ends: the other member goes on where it can. Whether it does, or did already.
    pub(super) async fn leave_cluster(&mut self, world: &mut World) -> bool {
        let began = self.clock.now();
        let gives_place = self.cluster.as_ref().is_some_and(|cluster| cluster.gives_place(began));
        if gives_place || self.switch().await.is_ok() {
            let until = self.clock.now() + SWITCH;
            // Until it gives up what it has, not only until it lingers.
            let has_role = |control: &Self| control.cluster.as_ref().is_some_and(|c| c.role == Role::Active);
            while self.clock.now() < until && has_role(self) {
                let due = self.cluster.as_ref().map_or(until, |cluster| cluster.due().min(until));
                let wait = self.clock.until(due);
                let Some(cluster) = &mut self.cluster else { break };
                tokio::select! {
                    Some(heard) = cluster.heard() => self.hear_cluster(heard, world).await,
                    () = tokio::time::sleep(wait) => {}
                }
                self.tick_cluster(world).await;
            }
            let is_taken = !self.is_active();
            info!("{}", if is_taken { "the other member goes on" } else { "the other member does not go on" });
        }
        let is_succeeded = !self.is_active();
        if let Some(mut cluster) = self.cluster.take() {
            cluster.leave_addresses(world.netlink()).await;
        }
        is_succeeded
    }

    /// When the cluster wants to be looked after.
    pub(super) fn cluster_due(&self) -> Instant {
        self.cluster.as_ref().map_or(Instant::FAR_FUTURE, crate::cluster::Cluster::due)
    }
}

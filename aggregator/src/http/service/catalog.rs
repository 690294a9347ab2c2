//! `rachis.v1.Catalog`.

use std::sync::Arc;

use proto::{
    CollectionName, SourceName,
    catalog::{Change, Collection, Source},
    wire::v1::{self as wire, catalog_server},
};
use serde_json::json;
use tonic::{Request, Response, Status};

use super::{
    super::{
        collections,
        refusal::{no_collection, no_source, source_name},
        source_config, sources,
    },
    collection, said,
};
use crate::query::Engine;

/// The service.
pub struct CatalogService {
    /// Whose catalog.
    pub engine: Arc<Engine>,
}

fn told(name: &CollectionName, collection: &Collection) -> wire::Collection {
    wire::Collection {
        name: name.to_string(),
        uid: collection.uid.to_string(),
        shards: collection.settings.shards,
        time_path: collection.settings.time_path.clone().unwrap_or_default(),
        version: collection.version,
    }
}

fn told_source(name: &SourceName, source: &Source) -> wire::Source {
    wire::Source {
        name: name.to_string(),
        collection: source.settings.collection.to_string(),
        topic: source.settings.topic.clone(),
        config: source_config::shown(&source.settings.config)
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        suspended: source.suspended,
        version: source.version,
    }
}

#[tonic::async_trait]
impl catalog_server::Catalog for CatalogService {
    async fn list_collections(
        &self,
        _: Request<wire::ListCollectionsRequest>,
    ) -> Result<Response<wire::ListCollectionsAnswer>, Status> {
        let catalog = self.engine.catalog();
        let collections = catalog
            .collections
            .iter()
            .map(|(name, collection)| told(name, collection))
            .collect();
        Ok(Response::new(wire::ListCollectionsAnswer { collections }))
    }

    async fn put_collection(
        &self,
        request: Request<wire::PutCollectionRequest>,
    ) -> Result<Response<wire::Collection>, Status> {
        let asked = request.into_inner();
        let name = collection(&asked.name)?;
        let wish = collections::Wish {
            shards: (asked.shards > 0).then_some(asked.shards),
            time_path: asked.time_path.map(said),
        };
        let (_, catalog) = collections::agree(&self.engine, &name, wish).await?;
        let made = catalog
            .collections
            .get(&name)
            .ok_or_else(|| no_collection(&name, &catalog))?;
        Ok(Response::new(told(&name, made)))
    }

    async fn drop_collection(
        &self,
        request: Request<wire::DropCollectionRequest>,
    ) -> Result<Response<wire::Dropped>, Status> {
        let name = collection(&request.into_inner().name)?;
        self.engine
            .roles
            .changes
            .propose(Change::DropCollection { name }, None)
            .await?;
        Ok(Response::new(wire::Dropped {}))
    }

    async fn list_sources(
        &self,
        _: Request<wire::ListSourcesRequest>,
    ) -> Result<Response<wire::ListSourcesAnswer>, Status> {
        let catalog = self.engine.catalog();
        Ok(Response::new(wire::ListSourcesAnswer {
            sources: catalog
                .sources
                .iter()
                .map(|(name, source)| told_source(name, source))
                .collect(),
        }))
    }

    async fn put_source(&self, request: Request<wire::PutSourceRequest>) -> Result<Response<wire::Source>, Status> {
        let asked = request.into_inner();
        let name = source_name(&asked.name)?;
        let mut body = json!({ "collection": asked.collection, "topic": asked.topic, "config": asked.config });
        if asked.text {
            body["format"] = "text".into();
        }
        if let Some(key) = said(asked.key) {
            body["key"] = key.into();
        }
        if asked.latest {
            body["start"] = "latest".into();
        }
        let (_, catalog) = sources::agree(&self.engine, &name, body).await?;
        self.source(&name, &catalog)
    }

    async fn drop_source(&self, request: Request<wire::DropSourceRequest>) -> Result<Response<wire::Dropped>, Status> {
        let name = source_name(&request.into_inner().name)?;
        self.engine
            .roles
            .changes
            .propose(Change::DropSource { name }, None)
            .await?;
        Ok(Response::new(wire::Dropped {}))
    }

    async fn suspend_source(
        &self,
        request: Request<wire::SuspendSourceRequest>,
    ) -> Result<Response<wire::Source>, Status> {
        let asked = request.into_inner();
        let name = source_name(&asked.name)?;
        let change = Change::SuspendSource {
            name: name.clone(),
            suspended: asked.suspended,
        };
        let catalog = self.engine.roles.changes.propose(change, None).await?;
        self.source(&name, &catalog)
    }
}

impl CatalogService {
    fn source(&self, name: &SourceName, catalog: &proto::Catalog) -> Result<Response<wire::Source>, Status> {
        let source = catalog.sources.get(name).ok_or_else(|| no_source(name, catalog))?;
        Ok(Response::new(told_source(name, source)))
    }
}
